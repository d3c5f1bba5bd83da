"""Who wants to know that rollouts have ended. Whoever joins the apps appends a callable when all are ready; it is
called in the transaction that ends them, and only wakes a loop."""

from collections.abc import Callable

ROLLOUT_ENDED: list[Callable[[int], None]] = []


def rollout_ended(rollout_id: int) -> None:
    """Tell of the end of a rollout."""
    for wake in ROLLOUT_ENDED:
        wake(rollout_id)
