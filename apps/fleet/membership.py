"""Which nodes a pool's query and a flavor's match select: pure functions of rows and a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.backfill import Mode
from engine.lending import Amounts, Lending, Offer
from engine.order import Reach

from .windows import Window, longest, spans


@dataclass(frozen=True, slots=True)
class Terms:
    """One contribution of a cluster; `consumers` holds domain ids, and None means every domain."""

    trust: int = 1
    share_percent: int = 100
    consumers: frozenset[int] | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    price_per_cpu_hour: float = 0.0
    price_per_gpu_hour: float = 0.0
    id: int = 0
    windows: tuple[Window, ...] = ()
    timezone: str = "UTC"
    cap: Amounts | None = None
    jurisdictions: frozenset[str] = frozenset()

    def in_force(self, now: datetime) -> bool:
        """Whether the period covers `now`; the end is exclusive."""
        return (self.starts_at is None or self.starts_at <= now) and (
            self.ends_at is None or now < self.ends_at
        )

    def offer(self, now: datetime) -> Offer:
        """What of it bounds placement: whom it admits, its windows around `now`, and its cap."""
        if not self.windows:
            return Offer(self.id, self.consumers, cap=self.cap)
        around = spans(self.windows, self.timezone, now.astimezone(UTC).date())
        return Offer(self.id, self.consumers, around, longest(self.windows), self.cap)


def lending(owner: int, terms: Sequence[Terms], now: datetime) -> Lending | None:
    """The terms in force of one cluster as far as they bound placement; None where nothing does."""
    if not any(one.windows or one.cap is not None for one in terms):
        return None
    return Lending(owner, tuple(one.offer(now) for one in terms))


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What membership looks at; `terms` are those in force. A node without any is in no pool."""

    id: int
    cluster: str
    domain: str
    region: str
    labels: Mapping[str, str]
    gpu_models: frozenset[str]
    terms: Sequence[Terms]
    lending: Lending | None = None

    @property
    def trust(self) -> int:
        """The highest trust among its terms; -1 when it is not lent."""
        return max((terms.trust for terms in self.terms), default=-1)

    @property
    def share_percent(self) -> int:
        """The largest share among its terms."""
        return max((terms.share_percent for terms in self.terms), default=0)

    @property
    def jurisdictions(self) -> frozenset[str]:
        """Those that all of its terms name which name any, so that no demand is ever broken."""
        named = [terms.jurisdictions for terms in self.terms if terms.jurisdictions]
        return frozenset.intersection(*named) if named else frozenset()

    @property
    def price(self) -> tuple[float, float]:
        """The highest price of a core and of a card for an hour among its terms, so that no ceiling is ever broken."""
        return (
            max((terms.price_per_cpu_hour for terms in self.terms), default=0.0),
            max((terms.price_per_gpu_hour for terms in self.terms), default=0.0),
        )

    @property
    def consumers(self) -> frozenset[int] | None:
        """Domains that may use it, over all terms; None means every domain."""
        found: set[int] = set()
        for terms in self.terms:
            if terms.consumers is None:
                return None
            found |= terms.consumers
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class PoolMembers:
    """One pool: its nodes by id, each flavor's nodes, per node whom the terms admit, how far and at what price (of a
    core and of a card for an hour), its backfill, and how far priority reaches in it."""

    nodes: list[int]
    flavors: list[tuple[str, list[int]]]
    consumers: dict[int, frozenset[int] | None]
    trust: dict[int, int]
    share_percent: dict[int, int]
    price: dict[int, tuple[float, float]] = field(default_factory=dict)
    backfill: Mode = Mode.EASY
    reach: Reach = Reach.WITHIN
    # Of the nodes that are lent with bounds, by id.
    lendings: dict[int, Lending] = field(default_factory=dict)
    # Of the nodes that are under any, by id.
    jurisdictions: dict[int, frozenset[str]] = field(default_factory=dict)

    def lends(self, node_id: int, domain_id: int) -> bool:
        """Whether the node's terms admit the domain's tenants."""
        admitted = self.consumers.get(node_id, frozenset())
        return admitted is None or domain_id in admitted


def matches(query: Mapping[str, Any], row: NodeRow) -> bool:
    """Whether a lent node answers the query of a pool; an absent key does not restrict."""
    if not row.terms or row.trust < query.get("trust", 0):
        return False
    named = (("clusters", row.cluster), ("domains", row.domain), ("regions", row.region))
    if any(key in query and value not in query[key] for key, value in named):
        return False
    return matches_flavor(query, row)


def matches_flavor(match: Mapping[str, Any], row: NodeRow) -> bool:
    """Whether labels and GPU models fit; an empty match takes every node."""
    if any(row.labels.get(key) not in values for key, values in match.get("labels", {}).items()):
        return False
    return "gpu_models" not in match or not row.gpu_models.isdisjoint(match["gpu_models"])


def members(
    query: Mapping[str, Any], flavors: Iterable[tuple[str, Mapping[str, Any]]], rows: Iterable[NodeRow]
) -> PoolMembers:
    """A pool's members; a node belongs to the first flavor that matches it, and to none if none does."""
    taken = sorted((row for row in rows if matches(query, row)), key=lambda row: row.id)
    by_flavor: list[tuple[str, list[int]]] = []
    rest = taken
    for name, match in flavors:
        by_flavor.append((name, [row.id for row in rest if matches_flavor(match, row)]))
        rest = [row for row in rest if not matches_flavor(match, row)]
    return PoolMembers(
        nodes=[row.id for row in taken],
        flavors=by_flavor,
        consumers={row.id: row.consumers for row in taken},
        trust={row.id: row.trust for row in taken},
        share_percent={row.id: row.share_percent for row in taken},
        price={row.id: row.price for row in taken},
        lendings={row.id: row.lending for row in taken if row.lending is not None},
        jurisdictions={row.id: found for row in taken if (found := row.jurisdictions)},
    )
