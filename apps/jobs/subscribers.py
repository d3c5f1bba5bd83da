"""Who wants to be woken when jobs move. Higher apps append a callable in `AppConfig.ready()`; it only wakes a loop."""

from collections.abc import Callable, Collection

JOB_MOVED: list[Callable[[Collection[int]], None]] = []


def jobs_moved(jobs: Collection[int]) -> None:
    """Called inside the transaction in which these jobs started or ended; they were made by something else."""
    if jobs:
        for wake in JOB_MOVED:
            wake(jobs)
