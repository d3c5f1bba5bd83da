"""Who wants to be woken when jobs move. Higher apps put a callable in `AppConfig.ready()`; it only wakes a loop.

The loop that is woken by ends also runs the scheduler, which has the capacity of these jobs to give away: their ends do
not wake it themselves.
"""

from collections.abc import Callable, Collection, Iterable

# By the kind of what made the jobs: what stands before the colon of their origin.
JOB_MOVED: dict[str, Callable[[Collection[int]], None]] = {}


def jobs_moved(jobs: Iterable[tuple[int, str]]) -> None:
    """Called inside the transaction in which these jobs (id, origin) started or ended; people's own have no origin."""
    moved: dict[str, list[int]] = {}
    for job, origin in jobs:
        if origin:
            moved.setdefault(origin.partition(":")[0], []).append(job)
    for kind, ids in moved.items():
        if kind in JOB_MOVED:
            JOB_MOVED[kind](ids)
