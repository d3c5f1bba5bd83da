"""`./portal bench queue`: a real job queue replayed in virtual time, under five policies of the same decider.

The trace is the last 34 days of a public GPU cluster's jobs (see its README beside it), on 2 and on 3 nodes of 8
cards, which is less than it asks for. What the trace lacks is set by rule:

- priority: LS 100, Guaranteed and Burstable 50, BE 0; jobs that never ran are left out;
- tenants: by CRC-32 of the job's name modulo 6, three parts to `a`, two to `b`, one to `c`; these are also their
  weights and their shares of the quota, and each may borrow what the others leave;
- names: jobs of a tenant that ask for the same are taken to be the same job, for the estimates of run times;
- time limits: 30 days for all, so a limit says nothing about a run.

FCFS, EASY and conservative know the priorities, go by priority and then by age, and have one queue for all, which
FCFS never lets anybody overtake in. `ours` is the product's default: a queue for each tenant, fair sharing
between them, the order of engine.order and EASY. `across` is the same with priority that reaches across tenants. The
same estimates serve all.
"""

import argparse
import csv
import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from engine.backfill import Mode
from engine.calibration import Earlier, stretch_of
from engine.fleet import Fleet, NodeRow, Request
from engine.forecast import Start, estimate_starts
from engine.order import OrderPolicy, jain, slowdown
from engine.queues import QueueRules, Strategy
from engine.quota import Limit, Node, QuotaTree
from engine.simulate import Job, QueuePolicy, Record, Simulation
from engine.snapshot import Candidate, PoolView, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data" / "queue"
PORTAL = False  # Read by the launcher: this one needs no portal.
FIRST = 10_000_000.0
DAY = 86_400.0
MIB = 1 << 20
LIMIT = 30 * DAY
PRIORITY = {"LS": 100, "Guaranteed": 50, "Burstable": 50, "BE": 0}
TENANTS = ("a", "a", "a", "b", "b", "c")
WEIGHT = {tenant: TENANTS.count(tenant) for tenant in sorted(set(TENANTS))}
QUEUE = {tenant: number for number, tenant in enumerate(WEIGHT, 1)}
# A node of the trace's cluster that every one of its jobs fits on: 8 cards, 128 cores, 768 GiB.
CARDS, CORES, MEMORY = 8, 128_000, 786_432 * MIB
RESOURCES = {"cpu": CORES, "memory": MEMORY, "gpu": CARDS * 1000}
# One in so many submissions gets an estimate of its start, scored when it has started.
ESTIMATE_EVERY = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy to compare: one queue for all, or one for each tenant with fair sharing."""

    policy: QueuePolicy
    tenants: bool = False


def settings() -> dict[str, Setting]:
    """The policies by name."""
    strict = {1: QueueRules(strategy=Strategy.STRICT_FIFO)}
    return {
        "fcfs": Setting(QueuePolicy(Mode.NONE, order=None, rules=strict)),
        "easy": Setting(QueuePolicy(Mode.EASY, order=None)),
        "conservative": Setting(QueuePolicy(Mode.CONSERVATIVE, order=None)),
        "ours": Setting(QueuePolicy(Mode.EASY, order=OrderPolicy()), tenants=True),
        "across": Setting(QueuePolicy(Mode.EASY, order=OrderPolicy(), across=frozenset({"all"})), tenants=True),
    }


def tenant_of(name: str) -> str:
    """The stated rule."""
    return TENANTS[crc32(name.encode()) % len(TENANTS)]


def read(folder: Path, days: float) -> list[dict[str, str]]:
    """The jobs of the last days that ran, in the order of their submission."""
    with gzip.open(folder / "openb_jobs.csv.gz", "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["start_s"] and row["end_s"]]
    rows = [row for row in rows if FIRST <= float(row["submit_s"]) < FIRST + days * DAY]
    return sorted(rows, key=lambda row: (float(row["submit_s"]), row["job"]))


def jobs_of(rows: Sequence[dict[str, str]], *, tenants: bool) -> list[Job]:
    """The trace as jobs of the simulator."""
    requests: dict[Request, Request] = {}
    jobs = []
    for number, row in enumerate(rows, 1):
        cards, milli = int(row["num_gpu"]), int(row["gpu_milli"] or 0)
        asked = Request(
            cpu=int(row["cpu_milli"]),
            memory=int(row["mem_mib"]) * MIB,
            gpu_count=cards,
            gpu_milli=milli if cards and milli else 1000,
        )
        request = requests.setdefault(asked, asked)
        tenant = tenant_of(row["job"])
        candidate = Candidate(
            job=number,
            queue=QUEUE[tenant] if tenants else 1,
            priority=PRIORITY[row["qos"]],
            submitted=float(row["submit_s"]),
            groups=((request, 1),),
            amounts={"cpu": request.cpu, "memory": request.memory, "gpu": cards * request.gpu_milli},
            pool="all",
            equivalence=request.shape,
        )
        keys = ((tenant, request.shape, row["qos"]), tenant, "all")
        seconds = max(1.0, float(row["end_s"]) - float(row["start_s"]))
        jobs.append(Job(candidate, seconds, LIMIT, keys))
    return jobs


def fleet_of(nodes: int) -> Fleet:
    """Empty nodes of one kind."""
    return Fleet.build(
        [
            NodeRow(number, f"node-{number}", CORES, MEMORY, 0, CORES, MEMORY, 0, gpu_free=[1000] * CARDS)
            for number in range(nodes)
        ]
    )


def tree_of(nodes: int, *, tenants: bool) -> QuotaTree:
    """Everything for one queue, or a part for each tenant that may borrow the rest."""
    total = {("all", name): amount * nodes for name, amount in RESOURCES.items()}
    if not tenants:
        return QuotaTree([Node(1, None, "all", {fr: Limit(amount) for fr, amount in total.items()})], {})
    parts = sum(WEIGHT.values())
    nodes_of = [Node(0, None, "cohort", {})]
    for tenant, weight in WEIGHT.items():
        limits = {fr: Limit(amount * weight // parts) for fr, amount in total.items()}
        nodes_of.append(Node(QUEUE[tenant], 0, tenant, limits, float(weight)))
    return QuotaTree(nodes_of, {})


@dataclass(slots=True)
class Forecasts:
    """Estimates made when jobs came, by job: when, as they were made, and as they were told (engine.calibration)."""

    made: dict[int, tuple[float, Start, Start]] = field(default_factory=dict)
    seen: int = 0

    def watch(self, simulation: Simulation, verdicts: Sequence[Verdict]) -> None:
        """Estimate the start of some of those that have just come and have to wait."""
        fresh = []
        for verdict in verdicts:
            if verdict.outcome != "grant" and simulation.records[verdict.job].submitted == simulation.now:
                self.seen += 1
                if self.seen % ESTIMATE_EVERY == 0 and verdict.job not in self.made:
                    fresh.append(verdict.job)
        if not fresh:
            return
        running = simulation.running

        def quantiles(job: int, probabilities: Any) -> Any:
            if job in running:
                item, since = running[job]
                elapsed = simulation.now - since
                return simulation.history.quantiles(item.keys, item.limit, probabilities, elapsed=elapsed)
            item = simulation.waiting[job]
            return simulation.history.quantiles(item.keys, item.limit, probabilities)

        starts = estimate_starts(
            simulation.snapshot(),
            now=simulation.now,
            quantiles=quantiles,
            since={job: since for job, (_, since) in running.items()},
        )
        stretch = stretch_of([self._earlier(job, simulation) for job in self.made])
        for job in fresh:
            if job in starts:
                self.made[job] = (simulation.now, starts[job], stretch.apply(starts[job], simulation.now))

    def _earlier(self, job: int, simulation: Simulation) -> Earlier:
        made, start, _ = self.made[job]
        began = simulation.records[job].first_start
        return Earlier(
            made, start.p50, start.p90, simulation.now if began is None else began, started=began is not None
        )

    def score(self, records: dict[int, Record]) -> dict[str, Any]:
        """Of the estimates as made and as told: which part had started by p50 and by p90, and the mean pinball loss
        of the waits in seconds."""
        rows = [
            (began, made, told) for job, (_, made, told) in self.made.items() if (began := records[job].first_start)
        ]
        if not rows:
            return {"estimates": 0}
        result: dict[str, Any] = {"waiting_jobs": self.seen, "estimates": len(rows)}
        started = np.array([row[0] for row in rows])
        for name, place in (("as_made", 1), ("as_told", 2)):
            p50, p90 = (np.array([getattr(row[place], part) for row in rows]) for part in ("p50", "p90"))
            result[name] = {
                "started_by_p50": round(float(np.mean(started <= p50 + 1.0)), 3),
                "started_by_p90": round(float(np.mean(started <= p90 + 1.0)), 3),
                "pinball_loss_s": {
                    part: round(float(np.mean(np.maximum(q * (started - at), (q - 1) * (started - at)))), 1)
                    for part, q, at in (("p50", 0.5, p50), ("p90", 0.9, p90))
                },
            }
        return result


def figures(jobs: Sequence[Job], names: Sequence[str], records: dict[int, Record], nodes: int) -> dict[str, Any]:
    """What is compared. Waits count to the start of the run that was finished; slowdown as in engine.order."""
    waits: dict[int, list[float]] = {}
    slow: dict[int, list[float]] = {}
    busy, lost, preempted = 0.0, 0.0, 0
    first = min(job.candidate.submitted for job in jobs)
    last = max(job.candidate.submitted for job in jobs)
    for job in jobs:
        record = records[job.candidate.job]
        if not record.finished:
            raise RuntimeError(f"job {record.job} of the trace did not finish: {record.spans}")
        cards = job.candidate.amounts["gpu"] / 1000
        for start, end, how in record.spans:
            busy += cards * max(0.0, min(end, last) - max(start, first))
            if how == "preempted":
                preempted, lost = preempted + 1, lost + cards * (end - start)
        response = record.spans[-1][1] - record.submitted
        wait = response - job.length
        waits.setdefault(job.candidate.priority, []).append(wait)
        slow.setdefault(job.candidate.priority, []).append(slowdown(wait, job.length))
    everyone = np.array([value for values in slow.values() for value in values])
    return {
        "bounded_slowdown": {
            "mean": round(float(everyone.mean()), 1),
            "p95": round(float(np.quantile(everyone, 0.95)), 1),
        },
        "slowdown_by_priority": {
            str(priority): round(float(np.mean(values)), 1) for priority, values in sorted(slow.items(), reverse=True)
        },
        "wait_s_by_priority": {
            str(priority): {
                "mean": round(float(np.mean(values))),
                "p50": round(float(np.quantile(values, 0.5))),
                "p95": round(float(np.quantile(values, 0.95))),
            }
            for priority, values in sorted(waits.items(), reverse=True)
        },
        "utilisation": round(busy / (nodes * CARDS * (last - first)), 4),
        "preemptions": preempted,
        "lost_gpu_hours": round(lost / 3600, 1),
        "last_end_day": round((max(record.spans[-1][1] for record in records.values()) - first) / DAY, 1),
        "jain": fairness(jobs, names, records, first, last),
    }


def fairness(
    jobs: Sequence[Job], names: Sequence[str], records: dict[int, Record], first: float, last: float
) -> dict[str, Any]:
    """Jain's index of GPU time by weight, over the hours in which each tenant had a job waiting all the time."""
    hours = int((last - first) // 3600)
    served = {tenant: np.zeros(hours) for tenant in WEIGHT}
    backlog = {tenant: np.zeros(hours, dtype=np.int64) for tenant in WEIGHT}
    for job, name in zip(jobs, names, strict=True):
        tenant, record = tenant_of(name), records[job.candidate.job]
        cards = job.candidate.amounts["gpu"] / 1000
        for start, end, _ in record.spans:
            for hour in range(max(0, int((start - first) // 3600)), min(hours - 1, int((end - first) // 3600)) + 1):
                begins = first + hour * 3600
                served[tenant][hour] += cards * max(0.0, min(end, begins + 3600) - max(start, begins))
        waited_from = int(np.ceil((record.submitted - first) / 3600))
        waited_to = int(((record.first_start or record.submitted) - first) // 3600)
        backlog[tenant][max(0, waited_from) : max(0, min(hours, waited_to))] += 1
    contended = np.logical_and.reduce([backlog[tenant] > 0 for tenant in WEIGHT])
    if not contended.any():
        return {"contended_hours": 0}
    totals = {tenant: float(served[tenant][contended].sum()) for tenant in WEIGHT}
    everything = sum(totals.values()) or 1.0
    return {
        "contended_hours": int(contended.sum()),
        "index": round(jain(totals[tenant] / weight for tenant, weight in WEIGHT.items()), 4),
        "shares": {tenant: round(value / everything, 3) for tenant, value in totals.items()},
    }


def replay(rows: Sequence[dict[str, str]], cards: int, setting: Setting, *, estimates: bool) -> dict[str, Any]:
    """One policy on so many cards."""
    nodes = cards // CARDS
    fleet = fleet_of(nodes)
    everywhere = np.ones(len(fleet), dtype=np.bool_)
    jobs = jobs_of(rows, tenants=setting.tenants)
    forecasts = Forecasts()
    began = time.perf_counter()
    simulation = Simulation(
        fleet=fleet,
        pools={"all": PoolView(everywhere, [("all", everywhere)])},
        tree=tree_of(nodes, tenants=setting.tenants),
        jobs=jobs,
        policy=setting.policy,
        start=jobs[0].candidate.submitted,
        watch=forecasts.watch if estimates else None,
    )
    records = simulation.run()
    result = figures(jobs, [row["job"] for row in rows], records, nodes)
    if estimates:
        result["estimated_starts"] = forecasts.score(records)
    result["decisions"] = simulation.decisions
    result["seconds"] = round(time.perf_counter() - began, 1)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description="Replay a real job queue under several policies.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with openb_jobs.csv.gz")
    parser.add_argument("--days", type=float, default=34.0, help="only so many days from the beginning")
    parser.add_argument("--cards", type=int, nargs="+", default=[16, 24], help=f"cards, in steps of {CARDS}")
    parser.add_argument("--policy", nargs="+", choices=sorted(settings()), default=list(settings()))
    parser.add_argument("--no-estimates", action="store_true", help="leave out the calibration of estimated starts")
    options = parser.parse_args(arguments)
    rows = read(options.data, options.days)
    result: dict[str, Any] = {
        "benchmark": "queue",
        "jobs": len(rows),
        "by_class": dict(Counter(row["qos"] for row in rows)),
        "weights": WEIGHT,
        "cards": {},
    }
    for cards in options.cards:
        found = result["cards"][str(cards)] = {}
        for name in options.policy:
            estimates = name == "ours" and not options.no_estimates
            found[name] = replay(rows, cards, settings()[name], estimates=estimates)
            print(f"{cards} cards, {name}: {found[name]['seconds']} s", file=sys.stderr)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
