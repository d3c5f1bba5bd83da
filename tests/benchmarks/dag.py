"""`./portal bench dag`: how fast workflows go through a real portal, from trigger to the last task's end.

Independent tasks a second, mapped tasks a second, latency of a hop on a chain, a fully connected fan, many runs at
once, trigger to first start, memory and idle cpu. Times of starts and ends are those of the node's agent; all run on
one machine and one clock.

    ./portal bench dag [--mapped 1000 10000] [--runs 100] [--history 2000000]
"""

import argparse
import time
from itertools import pairwise
from typing import Any

from .common import Portal, cpu_seconds, finish, machine, memory, peak_memory, seconds, spread

NOTHING = {"kind": "bash", "script": "true"}
# Starts after a trigger that are measured: single ones scatter over tens of milliseconds.
TRIGGERS = 20


def definition(name: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """A definition with `true` as every task."""
    return {"schema": 1, "name": name, "tasks": [{**NOTHING, **task} for task in tasks]}


def independent(count: int) -> dict[str, Any]:
    return definition(f"independent-{count}", [{"id": f"t{number}"} for number in range(count)])


def chain(length: int) -> dict[str, Any]:
    return definition(
        f"chain-{length}",
        [{"id": f"t{number}", "upstream": [f"t{number - 1}"] if number else []} for number in range(length)],
    )


def fan(layers: int, width: int) -> dict[str, Any]:
    return definition(
        f"fan-{layers}x{width}",
        [
            {
                "id": f"t{layer}-{number}",
                "upstream": [f"t{layer - 1}-{other}" for other in range(width)] if layer else [],
            }
            for layer in range(layers)
            for number in range(width)
        ],
    )


def throughput(portal: Portal, count: int) -> dict[str, float]:
    """Tasks a second from the trigger to the last end."""
    run = portal.run(portal.push(independent(count)))
    last = max(seconds(task["job__ended_at"]) for task in run["tasks"])
    seconds_taken = last - run["triggered"]
    return {"tasks_per_second": round(count / seconds_taken, 1), "seconds": round(seconds_taken, 2)}


def mapped(width: int) -> dict[str, Any]:
    """One task over a product of two lists."""
    sides = [width // 100, 100]
    over = {name: {"value": list(range(side))} for name, side in zip("ab", sides, strict=True)}
    return definition(f"mapped-{width}", [{"id": "t", "map": {"over": over, "limit": width}}])


def wide(portal: Portal, width: int) -> dict[str, Any]:
    """A mapped task, while a chain shows what it leaves of the latency of others."""
    workflow = portal.push(chain(10))
    triggered = time.time()
    run_id = portal.trigger(portal.push(mapped(width)))
    beside = gaps_of([portal.run(workflow, timeout=1800)])
    tasks = portal.ended(run_id, timeout=1800)["tasks"]
    taken = max(seconds(task["job__ended_at"]) for task in tasks) - triggered
    first = min(seconds(task["job__started_at"]) for task in tasks) - triggered
    return {
        "tasks_per_second": round(width / taken, 1),
        "seconds": round(taken, 2),
        "first_start_ms": round(first * 1000, 1),
        "hop_beside_ms": spread(beside),
    }


def crowd(portal: Portal, count: int) -> dict[str, Any]:
    """Runs of 20 tasks in four connected layers, all triggered one after the other without waiting."""
    workflow = portal.push({**fan(4, 5), "max_active_runs": count})
    began = time.time()
    runs = [portal.trigger(workflow) for _ in range(count)]
    triggered = time.time() - began
    tasks = [task for run_id in runs for task in portal.ended(run_id, timeout=1800)["tasks"]]
    taken = max(seconds(task["job__ended_at"]) for task in tasks) - began
    return {
        "tasks_per_second": round(len(tasks) / taken, 1),
        "seconds": round(taken, 2),
        "triggering_seconds": round(triggered, 2),
    }


def gaps_of(runs: list[dict[str, Any]]) -> list[float]:
    """Seconds between upstream's end and downstream's start, of runs of a chain."""
    gaps = []
    for run in runs:
        tasks = sorted(run["tasks"], key=lambda task: int(task["name"][1:]))
        for upstream, downstream in pairwise(tasks):
            gaps.append(seconds(downstream["job__started_at"]) - seconds(upstream["job__ended_at"]))
    return gaps


def hops(portal: Portal, length: int, repeats: int) -> dict[str, Any]:
    """Upstream's end to downstream's start on a chain; the duration is from the trigger to the last end."""
    workflow = portal.push(chain(length))
    gaps: list[float] = []
    durations = []
    for _ in range(repeats):
        run = portal.run(workflow)
        tasks = sorted(run["tasks"], key=lambda task: int(task["name"][1:]))
        gaps += gaps_of([run])
        durations.append(seconds(tasks[-1]["job__ended_at"]) - run["triggered"])
    return {
        "hop_ms": spread(gaps),
        "duration_s": {"best": round(min(durations), 2), "worst": round(max(durations), 2)},
        "trigger_to_first_start_ms": triggers(portal, TRIGGERS),
    }


def triggers(portal: Portal, count: int) -> dict[str, Any]:
    """From a trigger through the API to its first task's start, each in an idle portal."""
    workflow = portal.push(chain(1))
    waited = []
    for _ in range(count):
        run = portal.run(workflow)
        waited.append(seconds(run["tasks"][0]["job__started_at"]) - run["triggered"])
    return spread(waited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mapped", type=int, nargs="*", default=[1000], help="widths of mapped tasks, in hundreds")
    parser.add_argument("--runs", type=int, default=100, help="runs of 20 tasks at once; 0 leaves them out")
    parser.add_argument("--history", type=int, default=0, help="finished tasks to fill in before chains again")
    options = parser.parse_args()
    portal = Portal()
    portal.wait_for_node()
    result: dict[str, Any] = {"benchmark": "dag", "machine": machine()}
    portal.run(portal.push(chain(2)))  # Every process has loaded what it needs.
    time.sleep(5)  # At rest.
    used = cpu_seconds()
    time.sleep(10)  # The period over which idle cpu is measured.
    result["idle_cpu_percent_of_a_core"] = round((cpu_seconds() - used) * 10, 1)
    result["memory_at_rest_mib"] = memory()
    with peak_memory(result):
        result["chain_30"] = hops(portal, 30, 3)
        result["independent_200"] = throughput(portal, 200)
        result["independent_1000"] = throughput(portal, 1000)
        run = portal.run(portal.push(fan(10, 10)))
        last = max(seconds(task["job__ended_at"]) for task in run["tasks"])
        result["fan_10x10_s"] = round(last - run["triggered"], 2)
        for width in options.mapped:
            result[f"mapped_{width}"] = wide(portal, width)
        if options.runs:
            result[f"runs_{options.runs}x20"] = crowd(portal, options.runs)
    if options.history:
        from .history import aged

        result["with_history"] = aged(portal, options.history)
    finish(result)


if __name__ == "__main__":
    main()
