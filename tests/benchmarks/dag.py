"""`./portal bench dag`: how fast workflows go through a real portal, from trigger to the last task's end.

Independent tasks a second, latency of a hop on a chain, a fully connected fan, trigger to first start, memory
and idle cpu. Times of starts and ends are those of the node's agent; all run on one machine and one clock.
"""

import time
from itertools import pairwise
from typing import Any

from .common import Portal, cpu_seconds, finish, machine, memory, peak_memory, seconds, spread

NOTHING = {"kind": "bash", "script": "true"}


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


def hops(portal: Portal, length: int, repeats: int) -> dict[str, Any]:
    """Upstream's end to downstream's start on a chain; the duration is from the trigger to the last end."""
    workflow = portal.push(chain(length))
    gaps: list[float] = []
    durations = []
    first_starts = []
    for _ in range(repeats):
        run = portal.run(workflow)
        tasks = sorted(run["tasks"], key=lambda task: int(task["name"][1:]))
        for upstream, downstream in pairwise(tasks):
            gaps.append(seconds(downstream["job__started_at"]) - seconds(upstream["job__ended_at"]))
        durations.append(seconds(tasks[-1]["job__ended_at"]) - run["triggered"])
        first_starts.append(seconds(tasks[0]["job__started_at"]) - run["triggered"])
    return {
        "hop_ms": spread(gaps),
        "duration_s": {"best": round(min(durations), 2), "worst": round(max(durations), 2)},
        "trigger_to_first_start_ms": spread(first_starts),
    }


def main() -> None:
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
    finish(result)


if __name__ == "__main__":
    main()
