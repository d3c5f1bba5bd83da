"""Which jobs have moved, which waits are due and which runs are to be gone through since the last pass, so that it
looks at those and not at everything.

A hint in Redis and no more: what gets lost is found by the periodic search of all tasks in flight, and a wait by the
loop `waits`, which tells again of what is still due. Waits go by the number of their task, as a negative one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from apps.core import loops, redis
from apps.events.live import publish

from .models import Run

# In front of a tenant in which places of limits over runs may be free.
SLOTS = "slots:"
KEY = "rmportal:moved"
# In front of a run, so that both are in one set and taken in one round trip.
RUN = "run:"
MOVED = redis.Hint(lambda names: ("SADD", KEY, *names))


def tell(jobs: Collection[int]) -> None:
    """Remember the jobs once the present transaction has committed, and wake the advance loop."""
    redis.hint_on_commit(MOVED, map(str, jobs))
    loops.wake("advance")


def tell_waits(tasks: Collection[int]) -> None:
    """The same for tasks whose wait is due."""
    tell([-task for task in tasks])


def tell_runs(runs: Collection[int]) -> None:
    """The same for runs in which something may be ready although none of their jobs has moved."""
    redis.hint_on_commit(MOVED, (f"{RUN}{run}" for run in runs))
    loops.wake("advance")


def tell_tenants(tenants: Collection[int]) -> None:
    """The same for tenants in which places of limits over runs may be free."""
    if tenants:
        redis.hint_on_commit(MOVED, (f"{SLOTS}{tenant}" for tenant in tenants))
        loops.wake("advance")


def note_waits(tasks: Collection[int]) -> None:
    """Remember tasks whose wait is due, for a loop that goes on with a pass of the advance loop itself."""
    redis.hint("SADD", KEY, *(-task for task in tasks))


def tell_timetable() -> None:
    """Runs may be due sooner than was known: the timetable looks once the present transaction has committed."""
    loops.wake("timetable")


def backfill_moved(runs: Iterable[Run]) -> None:
    """Runs have started or ended: the backfills that made some of them may go on, and their pages show it."""
    found = {run.backfill_id for run in runs if run.backfill_id is not None}
    if found:
        tell_timetable()
        publish({f"backfill:{pk}" for pk in found})


@dataclass(frozen=True, slots=True)
class Told:
    """Jobs that have moved, tasks whose wait is due, runs to go through and tenants in which places may be free;
    `full` when there may be more."""

    jobs: list[int]
    waits: list[int]
    runs: list[int]
    full: bool
    tenants: frozenset[int] = frozenset()


def take(limit: int) -> Told:
    """At most `limit` of what was remembered, which is forgotten."""
    found = redis.hint("SPOP", KEY, limit)
    names = [name.decode() for name in found] if isinstance(found, list | set) else []
    runs = [int(name.removeprefix(RUN)) for name in names if name.startswith(RUN)]
    tenants = frozenset(int(name.removeprefix(SLOTS)) for name in names if name.startswith(SLOTS))
    told = [int(name) for name in names if not name.startswith((RUN, SLOTS))]
    return Told(
        [job for job in told if job > 0], [-task for task in told if task < 0], runs, len(names) == limit, tenants
    )
