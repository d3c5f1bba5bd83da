"""Who wants to be woken when jobs move. Higher apps append a callable in `AppConfig.ready()`; it only wakes a loop.

The loop that is woken by ends also runs the scheduler, which has the capacity of these jobs to give away: their ends do
not wake it themselves.
"""

from collections.abc import Callable, Collection

JOB_MOVED: list[Callable[[Collection[int]], None]] = []


def jobs_moved(jobs: Collection[int]) -> None:
    """Called inside the transaction in which these jobs started or ended; they were made by something else."""
    if jobs:
        for wake in JOB_MOVED:
            wake(jobs)
