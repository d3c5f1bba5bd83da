"""Members of a group over the domains that nodes are in: close together, or evenly apart."""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.constraints import Apart, Together
from engine.fleet import Fleet, Float64, Int64, Mask, Request
from engine.topology import Constraint, Host, Path, Spread, spread

_MEMBER = "member"


def room(fleet: Fleet, request: Request, fitting: Mask) -> Int64:
    """How many such members each of the fitting nodes takes now; very many where they ask for nothing."""
    found = np.where(fitting, np.iinfo(np.int32).max, 0).astype(np.int64)
    for need, free in ((request.cpu, fleet.cpu), (request.memory, fleet.memory), (request.storage, fleet.storage)):
        if need:
            found = np.minimum(found, np.maximum(free, 0) // need)
    if request.gpu_count:
        shares = np.maximum(fleet.gpu_free, 0).astype(np.int64) // request.gpu_milli
        # So many members, each on different cards, fit exactly if the cards offer enough when each gives as many.
        while True:
            fewer = np.minimum(shares, found[:, np.newaxis]).sum(axis=1) // request.gpu_count
            if (fewer >= found).all():
                break
            found = np.minimum(found, fewer)
    return found


def parts(fleet: Fleet, request: Request, count: int, fitting: Mask) -> list[tuple[Mask, int]] | int:
    """Sets of nodes with how many members each takes, as `request.together` wants it; or how many find room so.

    Which domains these are is decided by `engine.topology`.
    """
    together = request.together
    assert together is not None
    free = room(fleet, request, fitting)
    levels = together.levels
    hosts = [
        Host(fleet.names[index], fleet.labels[index], {_MEMBER: int(free[index])}) for index in np.flatnonzero(free)
    ]
    wanted = Spread(
        count, {_MEMBER: 1}, together.constraint, together.level, together.slice_level, together.slice_size
    )
    found = spread(levels, hosts, wanted)
    if isinstance(found, int):
        return found
    return [(_inside(fleet, levels, path), units) for path, units in found.items()]


def _inside(fleet: Fleet, levels: Sequence[str], path: Path) -> Mask:
    inside: Mask = np.logical_and.reduce(
        [fleet.label_mask(level, [value]) for level, value in zip(levels, path, strict=True)], axis=0
    )
    return inside


def shared(fleet: Fleet, together: Together, matching: Mask) -> Iterator[Mask]:
    """The domains that several groups may share, the smallest first: of the level, and where they are only preferred,
    of each wider one and at last all nodes."""
    depth = together.levels.index(together.level)
    lowest = depth if together.constraint == Constraint.REQUIRED else 0
    if together.constraint != Constraint.UNCONSTRAINED:
        for level in range(depth, lowest - 1, -1):
            keys = together.levels[: level + 1]
            paths: dict[Path, int] = {}
            inside = np.logical_and.reduce([matching, *(fleet.domains(key) > 0 for key in keys)], axis=0)
            for index in np.flatnonzero(inside):
                path = tuple(fleet.labels[index][key] for key in keys)
                paths[path] = paths.get(path, 0) + 1
            for path in sorted(paths, key=lambda path: (paths[path], path)):
                yield _inside(fleet, keys, path) & matching
    if together.constraint != Constraint.REQUIRED:
        yield matching


class Evenly:
    """Keeps count of a group's members by domain, for `Apart`."""

    def __init__(self, fleet: Fleet, apart: Apart, matching: Mask) -> None:
        self._apart, self._domains = apart, fleet.domains(apart.key)
        self._counts = np.zeros(int(self._domains.max(initial=0)) + 1, dtype=np.int64)
        # Domains of which every node is ruled out do not hold the others back.
        self._known = np.unique(self._domains[matching])

    def open_scores(self, score: Float64) -> Float64:
        """The scores of nodes whose domain may take one more; minus infinity for the others."""
        limit = np.iinfo(np.int64).max if self._apart.most is None else self._apart.most
        if self._apart.max_skew is not None and len(self._known):
            limit = min(limit, int(self._counts[self._known].min()) + self._apart.max_skew)
        return np.where(self._counts[self._domains] < limit, score, -np.inf)

    def add(self, node: int) -> None:
        """One more member is on the node."""
        self._counts[self._domains[node]] += 1
