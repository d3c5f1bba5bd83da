"""Which jobs have moved since the last pass, so that it looks at those and not at everything in flight.

A hint in Redis and no more: what gets lost is found by the periodic search of all tasks in flight.
"""

from collections.abc import Collection, Iterable
from functools import partial

from django.db import transaction

from apps.core import loops, redis
from apps.events.live import publish

from .models import Run

KEY = "rmportal:moved"


def tell(jobs: Collection[int]) -> None:
    """Remember the jobs once the present transaction has committed, and wake the advance loop."""
    transaction.on_commit(partial(redis.hint, "SADD", KEY, *jobs))
    loops.wake("advance")


def backfill_moved(runs: Iterable[Run]) -> None:
    """Runs have started or ended: the backfills that made some of them may go on, and their pages show it."""
    found = {run.backfill_id for run in runs if run.backfill_id is not None}
    if found:
        loops.wake("timetable")
        publish({f"backfill:{pk}" for pk in found})


def take(limit: int) -> list[int]:
    """At most `limit` of the remembered jobs, which are forgotten."""
    found = redis.hint("SPOP", KEY, limit)
    return [int(job) for job in found] if isinstance(found, list | set) else []


def forget() -> None:
    """Forget all: the caller is about to look at everything."""
    redis.hint("DEL", KEY)
