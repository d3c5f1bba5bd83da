"""The product's placement behind the interface of the public scorer of the openb trace (../shared/data/openb).

Only translates: nodes and pods become the engine's, each pod is placed by `engine.placement.place_gang` on a fleet
that expects the mix of the pods seen so far, and the fleet is charged as a grant would charge it.
"""

from typing import Any

from engine.fleet import Fleet, NodeRow, Request
from engine.fragmentation import Arrivals
from engine.placement import Placed, expect, place_gang, take_members


class Policy:
    """`place(pod)` answers (node index, cards), or None when the pod fits nowhere."""

    def __init__(self, cluster: Any, workload: Any, frag: Any) -> None:
        self.fleet = Fleet.build(
            [
                NodeRow(
                    id=index,
                    name=str(cluster.names[index]),
                    cpu_free=int(cluster.cpu_cap[index]),
                    cpu_capacity=int(cluster.cpu_cap[index]),
                    memory_free=int(cluster.mem_cap[index]),
                    memory_capacity=int(cluster.mem_cap[index]),
                    storage_free=0,
                    storage_capacity=0,
                    gpu_free=[1000] * int(cluster.ngpu[index]),
                    gpu_model=str(cluster.model[index]),
                )
                for index in range(len(cluster.names))
            ]
        )
        self.arrivals = Arrivals()
        self.requests: dict[Any, Request] = {}

    def place(self, pod: Any) -> tuple[int, list[int]] | None:
        key = (pod.cpu, pod.mem, pod.num_gpu, pod.gpu_milli, pod.gpu_spec)
        request = self.requests.get(key)
        if request is None:
            request = self.requests[key] = Request(
                cpu=int(pod.cpu),
                memory=int(pod.mem),
                gpu_count=int(pod.num_gpu),
                gpu_milli=int(pod.gpu_milli) if pod.num_gpu else 1000,
                gpu_models=frozenset(pod.gpu_spec),
            )
        self.arrivals.see(request)
        expect(self.fleet, self.arrivals.mix)
        groups = ((request, 1),)
        placed = place_gang(self.fleet, groups)
        if not isinstance(placed, Placed):
            return None
        take_members(self.fleet, groups, placed.members)
        [(_, _, node, cards)] = placed.members
        return node, list(cards)
