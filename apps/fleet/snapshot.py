"""The fleet as the engine sees it: arrays of nodes, with what is lent of them and what is taken."""

from collections.abc import Sequence

from engine.fleet import Fleet, NodeRow

from .models import Gpu, Node
from .states import LIVE, NodeState

COLUMNS = (
    "pk",
    "name",
    "state",
    "labels",
    "taints",
    "cpu_millicores",
    "memory_bytes",
    "storage_bytes",
    "allocated_cpu_millicores",
    "allocated_memory_bytes",
    "allocated_storage_bytes",
    "running",
    "runtimes",
    "cluster__region",
)


def load_fleet(
    *, shares: dict[int, int], trust: dict[int, int], ids: Sequence[int] | None = None, lock: bool = False
) -> Fleet:
    """The live nodes (or those with `ids`) as arrays, in id order; two reads whatever their number.

    `shares` (per cent lent) and `trust` come from the contributions, by node; a node that is not lent has no
    capacity. With `lock` the node rows are locked until the transaction ends, so what is read stays true.
    """
    nodes = Node.objects.filter(state__in=[*LIVE, NodeState.LOST]).order_by("pk")
    if ids is not None:
        nodes = nodes.filter(pk__in=ids)
    if lock:
        nodes = nodes.select_for_update(of=("self",))
    values = list(nodes.values_list(*COLUMNS))
    cards: dict[int, list[tuple[int, str, int, int]]] = {}
    for node_id, index, model, memory, taken in (
        Gpu.objects.filter(node__in=[row[0] for row in values])
        .order_by("node_id", "index")
        .values_list("node_id", "index", "model", "memory_bytes", "allocated_milli")
    ):
        cards.setdefault(node_id, []).append((index, model, memory, taken))
    rows = []
    for pk, name, state, labels, taints, cpu, memory, storage, *rest in values:
        used_cpu, used_memory, used_storage, running, runtimes, region = rest
        share = shares.get(pk, 0)
        cpu, memory, storage = (amount * share // 100 for amount in (cpu, memory, storage))
        mine = cards.get(pk, [])
        free = [-1] * (max((index for index, *_ in mine), default=-1) + 1)
        # A share of the cards is lent as whole cards.
        for index, _, _, taken in mine[: len(mine) * share // 100]:
            free[index] = 1000 - taken
        rows.append(
            NodeRow(
                id=pk,
                name=name,
                cpu_free=cpu - used_cpu,
                memory_free=memory - used_memory,
                storage_free=storage - used_storage,
                cpu_capacity=cpu,
                memory_capacity=memory,
                storage_capacity=storage,
                gpu_free=free,
                gpu_model=mine[0][1] if mine else "",
                gpu_memory=mine[0][2] if mine else 0,
                labels=labels,
                taints=taints,
                trust=trust.get(pk, 0),
                region=region or labels.get("region", ""),
                ready=state == NodeState.READY,
                runtimes=frozenset(runtimes),
                tasks=running,
            )
        )
    return Fleet.build(rows)
