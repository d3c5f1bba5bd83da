"""How fast the pure core decides: `python -m tests.benchmarks.engine_cycle [--json FILE] [--repeats N]`.

Needs no portal and no database. Prints one JSON: milliseconds of whole cycles over many nodes and queued jobs,
admissions a second, and microseconds of placing one member.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from engine.cycle import Candidate, PoolView, Snapshot, decide
from engine.placement import Fleet, NodeRow, Request, place_gang
from engine.quota import Limit, Node, QuotaTree

GIB = 1 << 30
RESOURCES = ("cpu", "memory", "storage", "gpu")
MODELS = ("A100", "H100", "L40S")


def build_fleet(count: int, chance: Random, *, used: float) -> Fleet:
    """Nodes of three kinds, on average `used` of their cpu and memory and of their cards taken."""
    rows = []
    for number in range(count):
        cores, cards = chance.choice([(32, 0), (64, 4), (96, 8)])
        load = min(1.0, max(0.0, chance.gauss(used, 0.03))) if used else 0.0
        taken = [0 if chance.random() < used else 1000 for _ in range(cards)]
        model = chance.choice(MODELS) if cards else ""
        rows.append(
            NodeRow(
                id=number,
                name=f"node-{number}",
                cpu_free=int(cores * 1000 * (1 - load)),
                memory_free=int(cores * 4 * GIB * (1 - load)),
                storage_free=1000 * GIB,
                cpu_capacity=cores * 1000,
                memory_capacity=cores * 4 * GIB,
                storage_capacity=1000 * GIB,
                gpu_free=taken,
                gpu_model=model,
                gpu_memory=80 * GIB if cards else 0,
                labels={"zone": chance.choice("abc"), "disk": chance.choice(["ssd", "hdd"])},
                trust=chance.choice([1, 2]),
                region=chance.choice(["eu", "us"]),
                flavor=frozenset({model.lower() or "cpu"}),
            )
        )
    return Fleet.build(rows)


def build_requests(count: int, chance: Random, *, smallest: int) -> list[Request]:
    """Different requests, from `smallest` cores up; a third of them for cards."""
    found = []
    for _ in range(count):
        cores = smallest + chance.randint(0, 7)
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


def build_tree(queues: int, flavors: list[str], nominal: dict[str, int]) -> QuotaTree:
    """Queues in ten cohorts below one root."""
    nodes = [Node(0, None, "root", {}), *(Node(number, 0, f"cohort-{number}", {}) for number in range(1, 11))]
    limits = {(flavor, resource): Limit(nominal[resource]) for flavor in flavors for resource in RESOURCES}
    nodes += [Node(100 + number, 1 + number % 10, f"queue-{number}", limits) for number in range(queues)]
    return QuotaTree(nodes, {})


def build_snapshot(
    nodes: int, jobs: int, *, seed: int, used: float, kinds: int, queues: int = 50, smallest: int = 1
) -> Snapshot:
    """A pool with four flavors and `jobs` candidates of `kinds` different shapes in `queues` queues."""
    chance = Random(seed)
    fleet = build_fleet(nodes, chance, used=used)
    flavors = ["cpu", *(model.lower() for model in MODELS)]
    requests = build_requests(kinds, chance, smallest=smallest)
    plenty = {"cpu": 10**12, "memory": 10**18, "storage": 10**18, "gpu": 10**12}
    candidates = []
    for job in range(jobs):
        kind = chance.randrange(kinds)
        request = requests[kind]
        amounts = {
            "cpu": request.cpu,
            "memory": request.memory,
            "storage": request.storage,
            "gpu": request.gpu_count * request.gpu_milli,
        }
        candidates.append(
            Candidate(
                job=job,
                queue=100 + chance.randrange(queues),
                priority=chance.choice([0, 0, 0, 10]),
                submitted=float(job),
                groups=((request, 1),),
                amounts=amounts,
                pool="default",
                equivalence=kind,
            )
        )
    views = [(flavor, fleet.flavor_mask(flavor)) for flavor in flavors]
    pools = {"default": PoolView(np.ones(nodes, dtype=np.bool_), views)}
    return Snapshot(fleet, pools, build_tree(queues, flavors, plenty), candidates)


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_cycle(snapshot: Snapshot, repeats: int, limit: int) -> dict[str, Any]:
    """Milliseconds of whole cycles over one snapshot, and what they decide."""
    verdicts = decide(snapshot, now=1e9, limit=limit)
    granted = sum(verdict.outcome == "grant" for verdict in verdicts)
    times = sorted(seconds(lambda: decide(snapshot, now=1e9, limit=limit)) * 1000 for _ in range(repeats))
    median = statistics.median(times)
    return {
        "nodes": len(snapshot.fleet),
        "candidates": len(snapshot.candidates),
        "kinds": len({item.equivalence for item in snapshot.candidates}),
        "granted": granted,
        "p50_ms": round(median, 2),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 2),
        "admissions_per_second": round(granted / median * 1000) if granted else 0,
    }


def measure_single(nodes: int) -> float:
    """Microseconds to place one member with a preference and half a card: the median of many."""
    fleet = build_fleet(nodes, Random(5), used=0.3)
    request = Request(cpu=500, memory=GIB, gpu_count=1, gpu_milli=500, prefer=(("disk", ("ssd",), 1.0),))
    allowed = np.ones(nodes, dtype=np.bool_)
    times = [seconds(lambda: place_gang(fleet, [(request, 1)], allowed=allowed)) for _ in range(500)]
    return round(statistics.median(times) * 1e6, 1)


def run(repeats: int) -> dict[str, Any]:
    """All measurements."""
    return {
        "benchmark": "engine_cycle",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cycles": {
            "blocked": measure_cycle(
                build_snapshot(1000, 10_000, seed=1, used=0.97, kinds=100, smallest=4), repeats, 1000
            ),
            "blocked_many_kinds": measure_cycle(
                build_snapshot(1000, 10_000, seed=2, used=0.97, kinds=1000, smallest=4), repeats, 1000
            ),
            "admitting": measure_cycle(
                build_snapshot(1000, 5_000, seed=3, used=0.0, kinds=100), max(3, repeats // 5), 5000
            ),
            "blocked_large": measure_cycle(
                build_snapshot(10_000, 10_000, seed=4, used=0.97, kinds=100, smallest=4),
                max(3, repeats // 5),
                1000,
            ),
        },
        "place_one_us": {str(nodes): measure_single(nodes) for nodes in (10, 1000, 10_000)},
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the JSON, and keep it in a file if asked to."""
    parser = argparse.ArgumentParser(description="Measure the scheduling cycle of the pure core.")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--repeats", type=int, default=20, help="cycles to measure in each setting")
    options = parser.parse_args(arguments)
    text = json.dumps(run(options.repeats), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
