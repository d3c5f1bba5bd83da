"""How the nodes of a pool became the candidates for a job."""

from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """One filter: how many nodes it took away, how many remained, how many it alone rejects."""

    filter: str
    rejected: int
    remaining: int
    only: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """How `total` nodes became the candidates, filter by filter."""

    total: int
    steps: tuple[Step, ...]

    @property
    def remaining(self) -> int:
        """The number of candidates at the end."""
        return self.steps[-1].remaining if self.steps else self.total

    def as_list(self) -> list[dict[str, object]]:
        """JSON-ready, in order."""
        return [step._asdict() for step in self.steps]
