"""What every backend can do. The rows say what should run; a backend makes it so and reports what happened.

All four calls may be repeated. Reports come back through `execution.commands.take_reports`, whatever the
backend, so fencing and accounting are the same for all.
"""

from collections.abc import Iterable
from typing import Protocol

from ..queries import LogPiece


class Backend(Protocol):
    """Runs the live placements of its nodes."""

    def submit(self, node_ids: Iterable[int]) -> None:
        """Bring the nodes' placements to what the rows say: start the granted, stop the unwanted."""
        ...

    def cancel(self, placement_ids: Iterable[int], reason: str) -> None:
        """Have the attempts of these placements stopped; their ends come as reports."""
        ...

    def observe(self, node_id: int) -> set[tuple[int, int]]:
        """The (placement, token) pairs that run on the node as far as the portal knows."""
        ...

    def logs(self, placement_id: int, offset: int, limit: int) -> LogPiece:
        """Up to `limit` bytes of the placement's log from `offset`."""
        ...
