"""How many trivial tasks a second one agent starts, watches and reports: `python -m tests.agent.throughput [N]`.

Not a timed test: it prints what this machine did, as JSON. `latency` is from pushing one assignment to an idle
agent until its started report arrives, and until its ended report arrives.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.agent.conftest import Agent, make_agent


def main(count: int) -> dict[str, object]:
    folder = tempfile.mkdtemp(prefix="rmportal-agent-")
    os.chmod(folder, 0o711)
    agent = make_agent(Path(folder))
    try:
        latencies = [one(agent) for _ in range(30)]
        before = cpu_seconds(agent)
        assignments = [agent.assignment("true", cpu_millicores=10) for _ in range(count)]
        began = time.monotonic()
        agent.portal.push(*assignments)
        for assignment in assignments:
            agent.portal.ended(assignment.placement, 120.0)
        seconds = time.monotonic() - began
        return {
            "tasks": count,
            "tasks_per_second": round(count / seconds, 1),
            "agent_cpu_milliseconds_per_task": round(1000 * (cpu_seconds(agent) - before) / count, 2),
            "latency_started_milliseconds": round(1000 * statistics.median(item[0] for item in latencies), 1),
            "latency_ended_milliseconds": round(1000 * statistics.median(item[1] for item in latencies), 1),
            "agent_pss_mebibytes": round(pss_mebibytes(agent), 1),
            "cores": len(os.sched_getaffinity(0)),
            "enforced": agent.portal.started(assignments[0].placement).enforced,
        }
    finally:
        agent.close()
        shutil.rmtree(folder)


def one(agent: Agent) -> tuple[float, float]:
    began = time.monotonic()
    placement = agent.run("true")
    agent.portal.started(placement)
    started = time.monotonic()
    agent.portal.ended(placement)
    return started - began, time.monotonic() - began


def cpu_seconds(agent: Agent) -> float:
    """Of the agent itself, without its tasks."""
    assert agent.process is not None
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mebibytes(agent: Agent) -> float:
    assert agent.process is not None
    text = Path(f"/proc/{agent.process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000), indent=2))
