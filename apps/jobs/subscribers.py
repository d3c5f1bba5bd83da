"""Who wants to be woken when jobs move. Higher apps append a callable in `AppConfig.ready()`; it only wakes a loop."""

from collections.abc import Callable

JOB_MOVED: list[Callable[[], None]] = []


def job_moved() -> None:
    """Called inside the transaction in which jobs started or ended."""
    for wake in JOB_MOVED:
        wake()
