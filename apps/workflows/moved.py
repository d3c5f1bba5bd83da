"""Which jobs have moved since the last pass, so that it looks at those and not at everything in flight.

A hint in Redis and no more: what gets lost is found by the periodic search of all tasks in flight.
"""

from collections.abc import Collection
from functools import partial

from django.db import transaction

from apps.core import loops, redis

KEY = "rmportal:moved"


def tell(jobs: Collection[int]) -> None:
    """Remember the jobs once the present transaction has committed, and wake the advance loop."""
    transaction.on_commit(partial(redis.hint, "SADD", KEY, *jobs))
    loops.wake("advance")


def take(limit: int) -> list[int]:
    """At most `limit` of the remembered jobs, which are forgotten."""
    found = redis.hint("SPOP", KEY, limit)
    return [int(job) for job in found] if isinstance(found, list | set) else []


def forget() -> None:
    """Forget all: the caller is about to look at everything."""
    redis.hint("DEL", KEY)
