"""The fleet as the engine sees it: what seldom changes is read once, what is taken is read each time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from apps.core.rows import fetch
from engine.constraints import Facts
from engine.fleet import Fleet, Int32, Int64, NodeRow
from engine.lending import Lending, Terms
from engine.sites import Site
from engine.stores import NOTHING, Stored

from .membership import PoolMembers
from .models import Gpu, Node, Region
from .states import LIVE, NodeState

# What an operator says of how a node is joined to others, where its agent cannot see it.
INTERCONNECT = "interconnect"
# And what a core and a card in use add to what the node draws, in watts.
WATTS_PER_CORE, WATTS_PER_GPU = "watts-per-core", "watts-per-gpu"
STATES = [str(state) for state in (*LIVE, NodeState.LOST)]
# What is taken of a node.
TAKEN = "allocated_cpu_millicores, allocated_memory_bytes, allocated_storage_bytes, running"


@dataclass(frozen=True, slots=True)
class Lent:
    """A node's lent capacity with nothing taken, and which of its cards are lent (a share lends whole cards)."""

    row: NodeRow
    cards: tuple[int, ...]
    kind: str
    cluster: int


def load_lent(pools: Iterable[PoolMembers]) -> dict[int, Lent]:
    """Every live node by id, as far as its contributions lend it; a node that is not lent has no capacity."""
    shares: dict[int, int] = {}
    trust: dict[int, int] = {}
    prices: dict[int, tuple[float, float]] = {}
    lendings: dict[int, Lending] = {}
    jurisdictions: dict[int, frozenset[str]] = {}
    for pool in pools:
        jurisdictions.update(pool.jurisdictions)
        shares.update(pool.share_percent)
        trust.update(pool.trust)
        prices.update(pool.price)
        lendings.update(pool.lendings)
    cards: dict[int, list[tuple[int, str, int]]] = {}
    for node_id, index, model, memory in Gpu.objects.order_by("node_id", "index").values_list(
        "node_id", "index", "model", "memory_bytes"
    ):
        cards.setdefault(node_id, []).append((index, model, memory))
    found = {}
    sites = _Sites()
    for pk, name, kind, cluster, labels, taints, cpu, memory, storage, network, runtimes, region, system in (
        Node.objects.filter(state__in=STATES)
        .order_by("pk")
        .values_list(
            "pk",
            "name",
            "cluster__kind",
            "cluster_id",
            "labels",
            "taints",
            "cpu_millicores",
            "memory_bytes",
            "storage_bytes",
            "network_mbps",
            "runtimes",
            "cluster__region",
            "system",
        )
    ):
        share = shares.get(pk, 0)
        cpu, memory, storage = (amount * share // 100 for amount in (cpu, memory, storage))
        mine = cards.get(pk, [])
        lent = tuple(index for index, _, _ in mine[: len(mine) * share // 100])
        row = NodeRow(
            id=pk,
            name=name,
            cpu_free=cpu,
            memory_free=memory,
            storage_free=storage,
            cpu_capacity=cpu,
            memory_capacity=memory,
            storage_capacity=storage,
            gpu_free=[1000 if index in lent else -1 for index in range(max(lent, default=-1) + 1)],
            gpu_model=mine[0][1] if mine else "",
            gpu_memory=mine[0][2] if mine else 0,
            labels=labels,
            taints=taints,
            trust=trust.get(pk, 0),
            region=region or labels.get("region", ""),
            runtimes=frozenset(runtimes),
            facts=facts_of(system, labels),
            price_cpu=prices.get(pk, (0.0, 0.0))[0],
            price_gpu=prices.get(pk, (0.0, 0.0))[1],
            lending=lendings.get(pk),
            stored=stored_of(system),
            network=network,
            site=sites.at(region or labels.get("region", ""), jurisdictions.get(pk, frozenset())),
            watts=(_watts(labels, WATTS_PER_CORE), _watts(labels, WATTS_PER_GPU)),
        )
        found[pk] = Lent(row=row, cards=lent, kind=kind, cluster=cluster)
    return found


class _Sites:
    """The sites of nodes, by what is said of regions; nodes that stand alike share one."""

    def __init__(self) -> None:
        self._carbon: dict[str, float | None] = {}
        self._ways: dict[str, dict[str, float]] = {}
        self._made: dict[tuple[str, frozenset[str]], Site] = {}
        for name, carbon, ways in Region.objects.values_list("name", "carbon", "round_trips"):
            self._carbon[name] = carbon
            for other, milliseconds in ways.items():
                self._ways.setdefault(name, {})[other] = milliseconds
                self._ways.setdefault(other, {})[name] = milliseconds

    def at(self, region: str, jurisdictions: frozenset[str]) -> Site:
        """The site of a node of a region under jurisdictions."""
        key = region, jurisdictions
        if key not in self._made:
            self._made[key] = Site(region, jurisdictions, self._ways.get(region, {}), self._carbon.get(region))
        return self._made[key]


def _watts(labels: Mapping[str, str], label: str) -> float:
    """What an operator says that a core or card in use draws more; 0 for none, or for what is no such number."""
    try:
        watts = float(labels.get(label, ""))
    except ValueError:
        return 0.0
    return watts if 0 < watts < 1e6 else 0.0


def stored_of(system: Mapping[str, Any]) -> Stored:
    """What lies ready there, as its agent reported."""
    images, datasets = system.get("images"), system.get("datasets")
    return Stored(frozenset(images or ()), dict(datasets or {})) if images or datasets else NOTHING


# Most nodes have the same.
_packages = lru_cache(maxsize=64)(frozenset)


def facts_of(system: Mapping[str, Any], labels: Mapping[str, str]) -> Facts:
    """What the agent reported; the operator adds interconnects by the label `interconnect` (joined by `.`)."""
    said = [name for name in labels.get(INTERCONNECT, "").split(".") if name]
    return Facts(
        architecture=system.get("arch", ""),
        cpu_flags=frozenset(system.get("cpu_flags", ())),
        python=system.get("python", ""),
        gpu_compute=system.get("gpu_compute", ""),
        gpu_driver=system.get("gpu_driver", ""),
        interconnects=frozenset(system.get("interconnects", ())) | frozenset(said),
        packages=_packages(tuple(system.get("packages", ()))),
    )


def load_fleet(lent: dict[int, Lent], *, ids: Sequence[int] | None = None, lock: bool = False) -> Fleet:
    """The nodes (or those with `ids`) with what is free of them now, in id order.

    With `lock` the node rows are locked until the transaction ends, so that what is read stays true; a card
    changes only together with its node.
    """
    chosen = [pk for pk in (lent if ids is None else ids) if pk in lent]
    taken: dict[int, dict[int, int]] = {}
    values = fetch(
        f"SELECT id, state, {TAKEN} FROM fleet_node WHERE id = ANY(%s::bigint[]) AND state = ANY(%s) "
        f"ORDER BY id {'FOR UPDATE' if lock else ''}",
        [chosen, STATES],
    )
    if any(lent[pk].cards for pk in chosen):
        for node_id, index, milli in Gpu.objects.filter(node__in=chosen, allocated_milli__gt=0).values_list(
            "node_id", "index", "allocated_milli"
        ):
            taken.setdefault(node_id, {})[index] = milli
    rows = []
    for pk, state, cpu, memory, storage, running in values:
        row, cards = lent[pk].row, taken.get(pk)
        rows.append(
            replace(
                row,
                cpu_free=row.cpu_free - cpu,
                memory_free=row.memory_free - memory,
                storage_free=row.storage_free - storage,
                gpu_free=[free - cards.get(index, 0) if free >= 0 else -1 for index, free in enumerate(row.gpu_free)]
                if cards
                else row.gpu_free,
                ready=state == NodeState.READY,
                tasks=running,
            )
        )
    return Fleet.build(rows)


# The fleet that was given out last, and the empty one behind it.
_last: tuple[Fleet, Fleet] | None = None


def present_fleet(empty: Fleet, terms: Terms | None = None) -> Fleet:
    """What `load_fleet` would read of all nodes of a fleet, quicker: only what is taken is read.

    `empty` has the lent nodes with nothing taken, by id. While it is the same object, what the static filters said of
    the fleet before is kept. `terms` are those of now, with what is left of their caps.
    """
    global _last
    found = fetch(
        f"SELECT id, (state = 'ready')::int, {TAKEN} FROM fleet_node WHERE state = ANY(%s)",
        [STATES],
    )
    rows = np.array(found, dtype=np.int64).reshape(-1, 6)
    place = np.searchsorted(empty.ids, rows[:, 0])
    known = place < len(empty)
    known[known] = empty.ids[place[known]] == rows[known, 0]
    rows, place = rows[known], place[known]

    def left(capacity: Int64, column: int) -> Int64:
        free = capacity.copy()
        free[place] -= rows[:, column]
        return free

    gpu_free = empty.gpu_free.copy(order="K")
    if gpu_free.shape[1]:
        _take_cards(empty, gpu_free)
    is_ready, tasks = np.zeros(len(empty), dtype=np.bool_), np.zeros(len(empty), dtype=np.int32)
    is_ready[place], tasks[place] = rows[:, 1], rows[:, 5]
    before = _last[1] if _last is not None and _last[0] is empty else empty
    fleet = before.at(
        cpu=left(empty.cpu, 2),
        memory=left(empty.memory, 3),
        storage=left(empty.storage, 4),
        gpu_free=gpu_free,
        tasks=tasks,
        ready=is_ready,
        terms=terms,
    )
    _last = empty, fleet
    return fleet


def _take_cards(empty: Fleet, gpu_free: Int32) -> None:
    """What is taken of cards that are lent."""
    cards = fetch("SELECT node_id, index, allocated_milli FROM fleet_gpu WHERE allocated_milli > 0")
    taken = np.array(cards, dtype=np.int64).reshape(-1, 3)
    place, card = np.searchsorted(empty.ids, taken[:, 0]), taken[:, 1]
    known = (place < len(empty)) & (card < gpu_free.shape[1])
    known[known] = empty.ids[place[known]] == taken[known, 0]
    place, card, milli = place[known], card[known], taken[known, 2]
    lent = gpu_free[place, card] >= 0
    gpu_free[place[lent], card[lent]] -= milli[lent].astype(np.int32)
