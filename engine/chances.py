"""Whether any job that waits could start at all, found out for all of them together.

What is asked here is necessary for a grant, not sufficient: a node for a member of each group, and quota. So where
nobody has a chance, the decider would grant nothing, unless it evicts somebody.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from engine.filters.gpu import cards_with
from engine.fleet import Fleet, Int64, Mask, Request
from engine.matching import static_answer
from engine.quota import QuotaTree
from engine.snapshot import Candidate, PoolView, charge_of


class Chances:
    """The requests of all jobs that ever waited, as arrays: one row for each different one."""

    def __init__(self) -> None:
        self._rows: dict[Request, int] = {}
        self._requests: list[Request] = []
        # For what the masks of nodes hold: static filters are asked anew where other nodes are ready.
        self._static: object = None
        # Of each job the rows of its groups, and the job with its fewest members.
        self._jobs: dict[int, tuple[tuple[int, ...], Candidate]] = {}
        self._passing: Mask = np.zeros((0, 0), dtype=np.bool_)
        self._needs: Int64 = np.zeros((5, 0), dtype=np.int64)

    def note(self, item: Candidate) -> None:
        """A job waits from now on."""
        for request, _ in item.groups:
            if request not in self._rows:
                self._rows[request] = len(self._requests)
                self._requests.append(request)
        self._jobs[item.job] = tuple(self._rows[request] for request, _ in item.groups), item.least

    def any(
        self, fleet: Fleet, tree: QuotaTree, pools: Mapping[str, PoolView], jobs: Iterable[int], suspended: Set[int]
    ) -> bool:
        """Whether any of these jobs, all of which were noted, could be granted on this fleet with this quota."""
        room = self._room(fleet)
        # For each pool, in which flavor there is a node for which request.
        open_to: dict[str, Mask] = {}
        for job in jobs:
            rows, item = self._jobs[job]
            if item.queue not in tree or item.queue in suspended:
                continue
            if item.pool not in pools or not pools[item.pool].flavors:
                continue
            found = open_to.get(item.pool)
            if found is None:
                masks = pools[item.pool].split.masks
                found = open_to[item.pool] = np.array([(room & nodes).any(axis=1) for nodes in masks]).T
            if len(rows) > 1:
                if found[list(rows)].any(axis=1).all():
                    return True
                continue
            for place in np.flatnonzero(found[rows[0]]).tolist():
                flavor = pools[item.pool].flavors[place][0]
                if tree.fits(item.queue, charge_of(item, flavor)) is None:
                    return True
        return False

    def _room(self, fleet: Fleet) -> Mask:
        """Which node (column) has room for one member that makes a request (row)."""
        if fleet.static_answers is not self._static:
            self._static = fleet.static_answers
            self._passing, self._needs = np.zeros((0, len(fleet)), dtype=np.bool_), self._needs[:, :0]
        if len(self._passing) < len(self._requests):
            self._learn(fleet, self._requests[len(self._passing) :])
        cpu, memory, storage, cards, milli = self._needs
        room = self._passing & (fleet.cpu >= cpu[:, np.newaxis])
        room &= fleet.memory >= memory[:, np.newaxis]
        room &= fleet.storage >= storage[:, np.newaxis]
        for share in np.unique(milli[cards > 0]):
            asking = np.flatnonzero((milli == share) & (cards > 0))
            room[asking] &= cards_with(fleet, int(share)) >= cards[asking, np.newaxis]
        return np.asarray(room)

    def _learn(self, fleet: Fleet, fresh: Sequence[Request]) -> None:
        passing = [static_answer(fleet, request).passing for request in fresh]
        needs = [(one.cpu, one.memory, one.storage, one.gpu_count, one.gpu_milli) for one in fresh]
        self._passing = np.vstack([self._passing, *passing])
        self._needs = np.hstack([self._needs, np.array(needs, dtype=np.int64).T])
