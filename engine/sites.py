"""Where nodes stand: under which jurisdictions, how far from other regions, and how clean their power is."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

_CACHE_LIMIT = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """What is the same for all nodes of a place, which share it.

    `round_trips` are milliseconds to other regions; `carbon` is grams of CO₂ for each kWh, None if not known.
    """

    region: str = ""
    jurisdictions: frozenset[str] = frozenset()
    round_trips: Mapping[str, float] = field(default_factory=dict)
    carbon: float | None = None

    def to(self, region: str) -> float:
        """Milliseconds to a region and back: none inside of one, inf where nobody knows."""
        return self.round_trips.get(region, 0.0 if region == self.region else np.inf)


NOWHERE = Site()


class Sites:
    """The sites of a fleet's nodes; many nodes share few. `watts` are by node what a core and a card in use add."""

    def __init__(self, sites: Sequence[Site], watts: Sequence[tuple[float, float]]) -> None:
        known: dict[Site, int] = {}
        codes = [known.setdefault(site, len(known)) for site in sites]
        self._codes, self._known, self._watts = np.array(codes, dtype=np.intp), list(known), watts
        # Ways by what was asked for; nothing here changes.
        self._ways: dict[Hashable, Float64] = {}

    def under(self, jurisdictions: Collection[str]) -> Mask:
        """Nodes under one of the jurisdictions."""
        table = [not site.jurisdictions.isdisjoint(jurisdictions) for site in self._known]
        return np.array(table, dtype=np.bool_)[self._codes]

    def round_trip(self, region: str) -> Float64:
        """Milliseconds from each node to a region and back."""
        return np.array([site.to(region) for site in self._known], dtype=np.float64)[self._codes]

    def ways(self, key: Hashable, make: Callable[[], Float64]) -> Float64:
        """What was made for a key before, or is now."""
        found = self._ways.get(key)
        if found is None:
            if len(self._ways) >= _CACHE_LIMIT:
                self._ways.clear()
            found = self._ways[key] = make()
        return found

    def regions_of(self, nodes: Mask) -> list[str]:
        """The regions in which these nodes stand."""
        return sorted({self._known[code].region for code in np.unique(self._codes[nodes])} - {""})

    @cached_property
    def carbon(self) -> Float64:
        """How much each node's watts count: its grams a kWh, where that is known of any node; those of whom it is not
        known have the mean of the others. 1 where it is known of none."""
        given = [site.carbon for site in self._known if site.carbon is not None]
        if not given:
            return np.ones(len(self._codes))
        mean = sum(given) / len(given)
        table = [mean if site.carbon is None else site.carbon for site in self._known]
        return np.array(table, dtype=np.float64)[self._codes]

    @cached_property
    def power(self) -> tuple[Float64, Float64]:
        """Weighted watts that a core and a card in use add on each node; who does not say has the most of all."""
        found = []
        for kind in (0, 1):
            weighed = np.array([pair[kind] for pair in self._watts], dtype=np.float64) * self.carbon
            found.append(np.where(weighed > 0, weighed, weighed.max(initial=0.0)))
        return found[0], found[1]
