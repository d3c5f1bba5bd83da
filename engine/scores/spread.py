"""Even load."""

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, left_free, score


@score("spread", weight=1.0, place=60)
def _spread(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The node with the most room and the fewest tasks."""
    if request.strategy != "spread":
        return None
    return 0.5 * left_free(fleet, request, nodes) + 0.5 / (1.0 + fleet.tasks[nodes])
