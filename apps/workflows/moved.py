"""Which jobs have moved since the last pass, and which runs are to be gone through, so that it looks at those and not
at everything in flight.

A hint in Redis and no more: what gets lost is found by the periodic search of all tasks in flight.
"""

from collections.abc import Collection
from functools import partial

from django.db import transaction

from apps.core import loops, redis

KEY = "rmportal:moved"
# In front of a run, so that both are in one set and taken in one round trip.
RUN = "run:"


def tell(jobs: Collection[int]) -> None:
    """Remember the jobs once the present transaction has committed, and wake the advance loop."""
    transaction.on_commit(partial(redis.hint, "SADD", KEY, *jobs))
    loops.wake("advance")


def tell_runs(runs: Collection[int]) -> None:
    """The same for runs in which something may be ready although none of their jobs has moved."""
    transaction.on_commit(partial(redis.hint, "SADD", KEY, *(f"{RUN}{run}" for run in runs)))
    loops.wake("advance")


def take(limit: int) -> tuple[list[int], list[int]]:
    """At most `limit` of the remembered jobs and runs, which are forgotten."""
    found = redis.hint("SPOP", KEY, limit)
    if not isinstance(found, list | set):
        return [], []
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    jobs = [int(name) for name in names if not name.startswith(RUN)]
    return jobs, [int(name.removeprefix(RUN)) for name in names if name.startswith(RUN)]


def forget() -> None:
    """Forget all: the caller is about to look at everything."""
    redis.hint("DEL", KEY)
