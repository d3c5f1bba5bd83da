"""What others do on the openb trace, written from their descriptions, behind the scorer's interface.

Random; BestFit, which leaves the least of all resources together; and FGD (*Beware of Fragmentation*, USENIX ATC'23) as
its authors run it: the workload's mix is given, scores are cut to integers from 0 to 100, ties go by a fixed order.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Peer:
    """Costs by kind of pod, computed for all nodes once and then only for nodes that changed; the lowest wins."""

    def __init__(self, cluster: Any, workload: Any, frag: Any) -> None:
        self.cluster, self.frag = cluster, frag
        self.kept: dict[Any, list[Any]] = {}
        self.changed: list[int] = []

    def costs(self, pod: Any, nodes: Array) -> tuple[Array, Array]:
        """For nodes that fit: the cost, and the card for a share."""
        raise NotImplementedError

    def place(self, pod: Any) -> tuple[int, list[int]] | None:
        key = (pod.cpu, pod.mem, pod.num_gpu, pod.gpu_milli, pod.gpu_spec)
        count = len(self.cluster.names)
        kept = self.kept.setdefault(key, [np.full(count, np.inf), np.zeros(count, dtype=int), None])
        stale = np.arange(count) if kept[2] is None else np.unique(np.array(self.changed[kept[2] :], dtype=int))
        kept[2] = len(self.changed)
        if len(stale):
            fitting = stale[self.cluster.feasible(pod)[stale]]
            kept[0][stale] = np.inf
            if len(fitting):
                kept[0][fitting], kept[1][fitting] = self.costs(pod, fitting)
        node = self.choose(kept[0])
        if node is None:
            return None
        self.changed.append(node)
        free = self.cluster.gpu_left[node]
        if pod.num_gpu == 1 and pod.gpu_milli < 1000:
            return node, [int(kept[1][node])]
        return node, [int(card) for card in np.flatnonzero(free >= pod.gpu_milli)[: pod.num_gpu]]

    def choose(self, costs: Array) -> int | None:
        """The cheapest node, by the stream's fixed order among equals."""
        lowest = costs.min()
        if lowest == np.inf:
            return None
        equal = np.flatnonzero(costs == lowest)
        return int(equal[np.argmin(self.cluster.rank[equal])])

    def tightest(self, pod: Any, nodes: Array) -> Array:
        """For a share the fitting card with the least free."""
        free = self.cluster.gpu_left[nodes]
        return np.asarray(np.where(free >= pod.gpu_milli, free, 10_000).argmin(axis=1))


class Random(Peer):
    """Any node that fits."""

    def __init__(self, cluster: Any, workload: Any, frag: Any) -> None:
        super().__init__(cluster, workload, frag)
        self.random = np.random.default_rng(1)

    def costs(self, pod: Any, nodes: Array) -> tuple[Array, Array]:
        return np.zeros(len(nodes)), self.tightest(pod, nodes)

    def choose(self, costs: Array) -> int | None:
        fitting = np.flatnonzero(costs < np.inf)
        return int(self.random.choice(fitting)) if len(fitting) else None


class BestFit(Peer):
    """The node that is left with the least, every resource as a part of the largest node's."""

    def costs(self, pod: Any, nodes: Array) -> tuple[Array, Array]:
        cluster = self.cluster
        cards = np.maximum(cluster.gpu_left[nodes], 0).sum(axis=1)
        left = (
            (cluster.cpu_left[nodes] - pod.cpu) / cluster.cpu_cap.max()
            + (cluster.mem_left[nodes] - pod.mem) / cluster.mem_cap.max()
            + (cards - pod.num_gpu * pod.gpu_milli) / (1000 * cluster.ngpu.max())
        )
        return left, self.tightest(pod, nodes)


class FGD(Peer):
    """The steepest descent of the fragmentation that the scorer itself measures."""

    def costs(self, pod: Any, nodes: Array) -> tuple[Array, Array]:
        cluster = self.cluster
        cpu, free = cluster.cpu_left[nodes] - pod.cpu, cluster.gpu_left[nodes]
        before = self.frag(nodes, cluster.cpu_left[nodes], free)
        card = np.zeros(len(nodes), dtype=int)
        if pod.num_gpu != 1 or pod.gpu_milli == 1000:
            fitting = free >= pod.gpu_milli
            taken = fitting & (np.cumsum(fitting, axis=1) <= pod.num_gpu) if pod.num_gpu else np.zeros_like(fitting)
            return -self.score(before - self.frag(nodes, cpu, np.where(taken, free - pod.gpu_milli, free))), card
        best = np.full(len(nodes), -1.0)
        for index in range(free.shape[1]):
            rows = np.flatnonzero(free[:, index] >= pod.gpu_milli)
            if len(rows):
                after = free[rows].copy()
                after[:, index] -= pod.gpu_milli
                score = self.score(before[rows] - self.frag(nodes[rows], cpu[rows], after))
                better = score > best[rows]
                best[rows[better]], card[rows[better]] = score[better], index
        return -best, card

    @staticmethod
    def score(descent: Array) -> Array:
        return np.asarray(np.floor(100 / (1 + np.exp(-descent / 1000))))
