"""`./portal bench schedule`: how long scheduling takes, in the engine and through PostgreSQL.

The engine: cycles one after the other over a full fleet, with 10,000 jobs queued in 100 tenants: before each, some of
those that run end, and as many come as were granted; then the same with reserved starts (EASY). Then how fast an empty
fleet fills, what one explanation and one simulation cost, and admissions through the portal's own scheduling loop.

    ./portal bench schedule [--nodes 100,1000,10000 --cycles 100 --ends 50 --kinds 200 --own 10 --jobs 5000]
"""

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from apps.core.memory import settle, uncollected
from engine.backfill import Plan, Running
from engine.cycle import decide
from engine.fleet import Fleet, NodeRow, Request
from engine.placement import Groups, Member, place_gang
from engine.profile import placed_at
from engine.quota import FlavorResource, Limit, Node, QuotaTree
from engine.simulate import Job as SimulatedJob
from engine.simulate import QueuePolicy, Simulation
from engine.snapshot import Candidate, PoolView, Snapshot, Verdict
from engine.suggestions import suggestions

from .common import Portal, finish, machine
from .lists import Filling

GIB = 1 << 30
NOW = 1e9
QUEUED = 10_000
TENANTS = 100
GRANTS_MAX = 1000
MODELS = ("A100", "H100", "L40S")
FLAVORS = ("cpu", *(model.lower() for model in MODELS))


def build_fleet(count: int, chance: Random) -> Fleet:
    """Empty nodes of three kinds."""
    rows = []
    for number in range(count):
        cores, cards = chance.choice([(32, 0), (64, 4), (96, 8)])
        model = chance.choice(MODELS) if cards else ""
        rows.append(
            NodeRow(
                id=number,
                name=f"node-{number}",
                cpu_free=cores * 1000,
                memory_free=cores * 4 * GIB,
                storage_free=1000 * GIB,
                cpu_capacity=cores * 1000,
                memory_capacity=cores * 4 * GIB,
                storage_capacity=1000 * GIB,
                gpu_free=[1000] * cards,
                gpu_model=model,
                gpu_memory=80 * GIB if cards else 0,
                labels={"zone": chance.choice("abc"), "disk": chance.choice(["ssd", "hdd"])},
                trust=chance.choice([1, 2]),
                region=chance.choice(["eu", "us"]),
                flavor=frozenset({model.lower() or "cpu"}),
            )
        )
    return Fleet.build(rows)


def build_requests(count: int, chance: Random) -> list[Request]:
    """Different requests; a third of them for cards, a fifth for a label."""
    found = []
    for _ in range(count):
        cores = chance.randint(4, 11)
        cards = chance.choice([0, 0, 1, 2, 4]) if chance.random() < 0.5 else 0
        found.append(
            Request(
                cpu=cores * 1000 + chance.randint(0, 99),
                memory=cores * 2 * GIB,
                storage=GIB,
                gpu_count=cards,
                gpu_milli=500 if cards == 1 and chance.random() < 0.5 else 1000,
                labels={"zone": (chance.choice("abc"),)} if chance.random() < 0.2 else {},
                prefer=(("disk", ("ssd",), 1.0),) if chance.random() < 0.3 else (),
            )
        )
    return found


def build_tree(fleet: Fleet) -> QuotaTree:
    """A queue for each tenant in ten cohorts, each with an equal part of every flavor; who needs more borrows."""
    limits = {}
    for flavor in FLAVORS:
        mask = fleet.flavor_mask(flavor)
        amounts = {
            "cpu": fleet.cpu_capacity[mask].sum(),
            "memory": fleet.memory_capacity[mask].sum(),
            "storage": fleet.storage_capacity[mask].sum(),
            "gpu": 1000 * fleet.cards[mask].sum(),
        }
        limits.update({(flavor, resource): Limit(int(amount) // TENANTS) for resource, amount in amounts.items()})
    nodes = [Node(0, None, "root", {}), *(Node(number, 0, f"cohort-{number}", {}) for number in range(1, 11))]
    nodes += [Node(100 + number, 1 + number % 10, f"queue-{number}", limits) for number in range(TENANTS)]
    return QuotaTree(nodes, {})


class Spent(NamedTuple):
    """What one cycle granted, and the seconds that it took by the clock and of the processor."""

    granted: int
    clock: float
    processor: float


class Yard:
    """A fleet with its queue, in which jobs come and end from one cycle to the next."""

    def __init__(self, nodes: int, kinds: int, own: int) -> None:
        self.chance = Random(nodes)
        self.fleet = build_fleet(nodes, self.chance)
        views = [(flavor, self.fleet.flavor_mask(flavor)) for flavor in FLAVORS]
        self.pools = {"default": PoolView(np.ones(nodes, dtype=np.bool_), views)}
        self.tree = build_tree(self.fleet)
        self.requests = build_requests(kinds, self.chance)
        self.kinds = [self.chance.sample(range(kinds), own) for _ in range(TENANTS)]
        self.count = 0
        self.candidates: dict[int, Candidate] = {}
        self.running: list[tuple[int, dict[FlavorResource, int], Groups, tuple[Member, ...], float]] = []
        self.come(QUEUED)

    def come(self, count: int) -> None:
        """New jobs of any tenant, each of one of its tenant's kinds."""
        for _ in range(count):
            self.count += 1
            tenant = self.chance.randrange(TENANTS)
            kind = self.chance.choice(self.kinds[tenant])
            request = self.requests[kind]
            cards = request.gpu_count * request.gpu_milli
            self.candidates[self.count] = Candidate(
                job=self.count,
                queue=100 + tenant,
                priority=self.chance.choice([0, 0, 0, 10]),
                submitted=float(self.count),
                groups=((request, 1),),
                amounts={"cpu": request.cpu, "memory": request.memory, "storage": request.storage, "gpu": cards},
                pool="default",
                equivalence=kind,
            )

    def end(self, count: int) -> None:
        """Some of those that run end."""
        for _ in range(min(count, len(self.running))):
            place = self.chance.randrange(len(self.running))
            self.running[place], self.running[-1] = self.running[-1], self.running[place]
            queue, charge, groups, members, _ = self.running.pop()
            self.tree.remove(queue, charge)
            for group, _, node, cards in members:
                self.fleet.give(groups[group][0], node, cards)

    def snapshot(self, *, reserve: bool = False) -> Snapshot:
        """What a cycle sees; to `reserve` starts it is told when those that run will end, and how long others take."""
        snapshot = Snapshot(self.fleet, self.pools, self.tree, list(self.candidates.values()))
        if not reserve:
            return snapshot
        running = [
            Running(number, queue, end, charge, placed_at(groups, members))
            for number, (queue, charge, groups, members, end) in enumerate(self.running)
        ]
        durations = {job: 30.0 + job * 37 % 4000 for job in self.candidates}
        return replace(snapshot, plan=Plan(running=running, durations=durations, told=False))

    def start(self, verdicts: list[Verdict]) -> int:
        """What was granted runs; returns how many."""
        granted = [verdict for verdict in verdicts if verdict.outcome == "grant"]
        for verdict in granted:
            item = self.candidates.pop(verdict.job)
            charge = {(str(verdict.flavor), resource): amount for resource, amount in item.amounts.items()}
            self.tree.add(item.queue, charge)
            for group, _, node, cards in verdict.members:
                self.fleet.take(item.groups[group][0], node, cards)
            end = NOW + self.chance.uniform(1.0, 3600.0)
            self.running.append((item.queue, charge, item.groups, verdict.members, end))
        return len(granted)

    def cycle(self, *, reserve: bool = False) -> Spent:
        """One cycle, after which as many jobs come as were granted."""
        snapshot = self.snapshot(reserve=reserve)
        began, used = time.perf_counter(), time.process_time()
        with uncollected():  # As the loop does.
            verdicts = decide(snapshot, now=NOW, limit=GRANTS_MAX)
        spent, used = time.perf_counter() - began, time.process_time() - used
        granted = self.start(verdicts)
        self.come(granted)
        return Spent(granted, spent, used)


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of seconds, in milliseconds."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered) * 1000, 1),
        "p99": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] * 1000, 1),
        "max": round(ordered[-1] * 1000, 1),
    }


def measure_engine(nodes: int, cycles: int, ends: int, kinds: int, own: int) -> dict[str, Any]:
    """Fill a fleet, cycle over it, and ask about it."""
    yard = Yard(nodes, kinds, own)
    filling = [yard.cycle()]
    while filling[-1].granted:
        filling.append(yard.cycle())
    running: dict[bool, list[Spent]] = {False: [], True: []}
    for reserve, done in running.items():
        for _ in range(cycles):
            yard.end(ends)
            done.append(yard.cycle(reserve=reserve))
    filled = sum(spent.granted for spent in filling)
    asked = [item.job for item in yard.candidates.values() if item.groups[0][0].labels][:5]
    return {
        "nodes": nodes,
        "running": len(yard.running),
        "queued": len(yard.candidates),
        "granted_per_cycle": round(statistics.mean(spent.granted for spent in running[False]), 1),
        "cycle_ms": percentiles([spent.clock for spent in running[False]]),
        "cycle_processor_ms": percentiles([spent.processor for spent in running[False]]),
        "cycle_with_reserved_starts_ms": percentiles([spent.clock for spent in running[True]]),
        "cycle_with_reserved_starts_processor_ms": percentiles([spent.processor for spent in running[True]]),
        "filling": {"granted": filled, "per_second": round(filled / sum(spent.clock for spent in filling))},
        "explain_ms": percentiles([seconds(partial(suggestions, yard.snapshot(), job, now=NOW)) for job in asked]),
        "simulate": measure_simulation(yard),
        "place_one_us": measure_single(yard.fleet),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure_simulation(yard: Yard, queued: int = 1000) -> dict[str, Any]:
    """What becomes of the first so many that wait, on the fleet when it is empty, until all have ended."""
    jobs = [
        SimulatedJob(replace(item, submitted=NOW), seconds=60.0 + item.job % 600, limit=3600.0)
        for item in list(yard.candidates.values())[:queued]
    ]
    simulation = Simulation(
        fleet=yard.fleet.empty(),
        pools=yard.pools,
        tree=QuotaTree(yard.tree.nodes.values(), {}),
        jobs=jobs,
        policy=QueuePolicy(),
        start=NOW,
    )
    spent = seconds(simulation.run)
    return {"jobs": len(jobs), "decisions": simulation.decisions, "ms": round(spent * 1000, 1)}


def measure_single(fleet: Fleet) -> float:
    """Microseconds to place one member with a preference and half a card: the median of many."""
    request = Request(cpu=500, memory=GIB, gpu_count=1, gpu_milli=500, prefer=(("disk", ("ssd",), 1.0),))
    empty, allowed = fleet.empty(), np.ones(len(fleet), dtype=np.bool_)
    times = [seconds(lambda: place_gang(empty, [(request, 1)], allowed=allowed)) for _ in range(500)]
    return round(statistics.median(times) * 1e6, 1)


def measure_durable(count: int, nodes: int, timeout: float = 300.0) -> dict[str, Any]:
    """Admissions by the portal's own loop: `count` jobs that were held are released at once."""
    portal = Portal()  # Before anything of the portal's own code.
    from django.db import transaction

    from apps.core import loops
    from apps.core.actors import SYSTEM
    from apps.jobs.models import Job
    from apps.quotas.commands import set_limits
    from apps.quotas.models import QuotaNode
    from apps.scheduling.models import Cycle

    portal.wait_for_node()
    filling = Filling(portal)
    filling.nodes(nodes)
    for node in QuotaNode.objects.filter(limits__isnull=False).distinct():  # As much quota as there are nodes now.
        rows = node.limits.values("flavor", "resource", "nominal")
        limits = [{**row, "nominal": row["nominal"] * (nodes + 1)} for row in rows]
        set_limits(actor=SYSTEM, node_id=node.pk, limits=limits)
    template = portal.call("POST", "jobs", json={"tenant": "main", "groups": [{"script": "true"}]})["id"]
    deadline = time.monotonic() + timeout
    while Job.objects.get(pk=template).state != "succeeded" and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting = {
        "state": "'pending'", "held": "true", "started_at": "NULL", "ended_at": "NULL", "submitted_at": "now()",
        "reason": "'held'", "detail": "'Held.'", "exit_code": "NULL", "end_reason": "''",
    }  # fmt: skip
    filling.copies(Job, template, count, waiting)
    filling.analyse()
    before = Cycle.objects.order_by("-id").values_list("id", flat=True).first() or 0
    with transaction.atomic():
        Job.objects.filter(state="pending", held=True).update(held=False)
        loops.wake("schedule")
    cycles: list[Any] = []
    while sum(cycle.granted for cycle in cycles) < count and time.monotonic() < deadline:
        time.sleep(0.1)
        cycles = list(Cycle.objects.filter(pk__gt=before).order_by("id"))
    granted, last = sum(cycle.granted for cycle in cycles), cycles[-1]
    lasted = (last.observe_ms + last.decide_ms + last.apply_ms) / 1000
    spent = (last.at - cycles[0].at).total_seconds() + lasted
    steps = ("observe_ms", "decide_ms", "apply_ms")
    return {
        "granted": granted,
        "nodes": nodes,
        "per_second": round(granted / spent),
        "cycles": len(cycles),
        **{step: round(statistics.median(getattr(cycle, step) for cycle in cycles), 1) for step in steps},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="./portal bench schedule")
    parser.add_argument("--nodes", default="100,1000,10000", help="numbers of nodes, with commas between them")
    parser.add_argument("--cycles", type=int, default=100, help="cycles at each number of nodes")
    parser.add_argument("--ends", type=int, default=50, help="jobs that end between two cycles")
    parser.add_argument("--kinds", type=int, default=200, help="different requests among the jobs")
    parser.add_argument("--own", type=int, default=10, help="how many of these each tenant asks for")
    parser.add_argument("--jobs", type=int, default=5000, help="jobs that are admitted through PostgreSQL; 0 for none")
    options = parser.parse_args()
    settle()  # As the worker does.
    result: dict[str, Any] = {"benchmark": "schedule", "machine": machine(), "kinds": options.kinds, "engine": []}
    for nodes in options.nodes.split(","):
        result["engine"].append(measure_engine(int(nodes), options.cycles, options.ends, options.kinds, options.own))
        gc.collect()
    if options.jobs:
        result["durable"] = measure_durable(options.jobs, nodes=1000)
    finish(result)


if __name__ == "__main__":
    main()
