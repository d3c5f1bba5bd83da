"""Members onto a tree of domains (say block, rack, host) with as few domains as possible.

Rules as in Kueue's topology-aware scheduling: how many units fit each lowest domain is counted and summed up;
a domain is chosen at the wanted level, or above it; then the way goes down level by level, the largest domains
first and the last one the smallest that still takes the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.flavors import tolerated

Path = tuple[str, ...]


class Constraint(StrEnum):
    """How far members have to stay together."""

    REQUIRED = "required"
    PREFERRED = "preferred"
    UNCONSTRAINED = "unconstrained"


@dataclass(frozen=True, slots=True)
class Host:
    """A node: what is free on it, its labels and taints, and whether it takes members at all."""

    name: str
    labels: Mapping[str, str]
    capacity: Mapping[str, int]
    usable: bool = True
    taints: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """`count` members of `member` resources each; `slice_size` of them stay in one domain of `slice_level`."""

    count: int
    member: Mapping[str, int]
    constraint: Constraint
    level: str | None = None
    slice_level: str | None = None
    slice_size: int = 1
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, str]] = ()


@dataclass(slots=True)
class _Domain:
    """`members` and `slices` are what fits, and on the way down what is assigned."""

    path: Path
    children: list["_Domain"] = field(default_factory=list)
    free: dict[str, int] = field(default_factory=dict)
    members: int = 0
    slices: int = 0


def spread(levels: Sequence[str], hosts: Iterable[Host], request: Spread) -> dict[Path, int] | int:
    """Members by lowest domain or, if not all can be placed, how many can.

    Raises ValueError for a level that is not one of `levels`, a slice level above the level, or a count that is
    no multiple of the slice size.
    """
    return _Topology(levels, hosts, request).place()


class _Topology:
    """The domains of one request, by level."""

    def __init__(self, levels: Sequence[str], hosts: Iterable[Host], request: Spread) -> None:
        self.request, self.lowest = request, len(levels) - 1
        for level in (request.level, request.slice_level):
            if level is not None and level not in levels:
                raise ValueError(f"there is no level {level}; the levels are {', '.join(levels)}")
        self.level = self.lowest if request.level is None else levels.index(request.level)
        self.slice_level = self.lowest if request.slice_level is None else levels.index(request.slice_level)
        if request.level is not None and self.slice_level < self.level:
            raise ValueError(f"slices of level {request.slice_level} do not lie inside one {request.level}")
        if request.count % request.slice_size:
            raise ValueError(f"{request.count} members are no multiple of the slice size {request.slice_size}")
        self.loose = request.constraint == Constraint.UNCONSTRAINED
        self.by_level: list[dict[Path, _Domain]] = [{} for _ in levels]
        for host in hosts:
            if self.accepts(host) and all(level in host.labels for level in levels):
                self.add(tuple(host.labels[level] for level in levels), host)
        self.count_up()

    def accepts(self, host: Host) -> bool:
        """Whether members may run on the host."""
        if any(host.labels.get(key) != value for key, value in self.request.selector.items()):
            return False
        repelled = any(
            taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated(taint, self.request.tolerations)
            for taint in host.taints
        )
        return host.usable and not repelled

    def add(self, path: Path, host: Host) -> None:
        """Add what a host has to its lowest domain, making the domains on the way."""
        above: _Domain | None = None
        for depth, domains in enumerate(self.by_level, 1):
            domain = domains.get(path[:depth])
            if domain is None:
                domain = domains[path[:depth]] = _Domain(path[:depth])
                if above is not None:
                    above.children.append(domain)
            above = domain
        if above is not None:
            for resource, amount in host.capacity.items():
                above.free[resource] = above.free.get(resource, 0) + amount

    def count_up(self) -> None:
        """How many members and slices fit each domain, from the lowest level up."""
        member = {resource: amount for resource, amount in self.request.member.items() if amount > 0}
        for depth in range(self.lowest, -1, -1):
            for domain in self.by_level[depth].values():
                if depth == self.lowest:
                    fitting = [domain.free.get(resource, 0) // amount for resource, amount in member.items()]
                    domain.members = max(0, min(fitting, default=self.request.count))
                else:
                    domain.members = sum(child.members for child in domain.children)
                if depth == self.slice_level:
                    domain.slices = domain.members // self.request.slice_size
                elif depth < self.slice_level:
                    domain.slices = sum(child.slices for child in domain.children)

    def ordered(self, domains: Iterable[_Domain], *, slices: bool) -> list[_Domain]:
        """The largest first (without a constraint, the smallest), then the tightest, then by name."""
        sign = 1 if self.loose else -1

        def key(domain: _Domain) -> tuple[int, int, Path]:
            return (sign * (domain.slices if slices else domain.members), domain.members, domain.path)

        return sorted(domains, key=key)

    def fewest(self, domains: Iterable[_Domain], units: int, *, slices: bool) -> tuple[list[tuple[_Domain, int]], int]:
        """Domains and how many units each takes, with as few domains as possible; and the units left over."""
        left, taken = self.ordered(domains, slices=slices), list[tuple[_Domain, int]]()
        everything = units

        def room(domain: _Domain) -> int:
            return domain.slices if slices else domain.members

        while units > 0 and left:
            # Without a constraint one domain for all is best, and else the smallest come first.
            single = units == everything or not self.loose
            whole = [domain for domain in left if room(domain) >= units] if single else []
            # The last one: the smallest that takes the rest, the first of these in order.
            domain = min(whole, key=room) if whole else left[0]
            left.remove(domain)
            used = min(units, room(domain))
            if used:
                taken.append((domain, used))
                units -= used
        return taken, units

    def start(self) -> tuple[int, list[_Domain], int]:
        """The level and domains to go down from, and how many slices fit there at most."""
        slices = self.request.count // self.request.slice_size
        level = self.level
        while True:
            ordered = self.ordered(self.by_level[level].values(), slices=True)
            whole = [domain for domain in ordered if domain.slices >= slices]
            if whole:
                return level, [min(whole, key=lambda domain: domain.slices)], slices
            if self.request.constraint == Constraint.REQUIRED:
                return level, [], max((domain.slices for domain in ordered), default=0)
            if level == 0 or self.loose:
                taken, missing = self.fewest(ordered, slices, slices=True)
                return level, [domain for domain, _ in taken], slices - missing
            level -= 1

    def place(self) -> dict[Path, int] | int:
        """Choose domains from the starting level down to the lowest."""
        size, slices = self.request.slice_size, self.request.count // self.request.slice_size
        level, domains, fitting = self.start()
        if fitting < slices:
            return fitting * size
        taken, _ = self.fewest(domains, slices, slices=True)
        while level < min(self.lowest, self.slice_level):
            level += 1
            children = [child for domain, _ in taken for child in domain.children]
            taken, _ = self.fewest(children, slices, slices=True)
        members = [(domain, units * size) for domain, units in taken]
        while level < self.lowest:
            level += 1
            members = [
                part for domain, units in members for part in self.fewest(domain.children, units, slices=False)[0]
            ]
        return {domain.path: units for domain, units in members}
