"""Observe: who runs, where, and when each is expected to give its room back."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from django.db import connection

from apps.jobs.models import usage_of
from engine.backfill import Running
from engine.company import Bonds
from engine.fleet import Fleet, Int64, Request
from engine.quota import FlavorResource, QuotaTree

from .runtimes import Float64, RunTimes

# A job that was told to stop is expected to have stopped so many seconds later, beside its notice.
STOPS_SECONDS = 1.0


@dataclass(slots=True)
class LiveRun:
    """A live attempt as it was granted. `members` are (group, rank, node id, cards, request of the member)."""

    attempt: int
    job: int
    tenant: int
    name: str
    limit: float
    priority: int
    submitted: float
    equivalence: str
    pool: str
    queue: int
    flavor: str
    usage: Mapping[FlavorResource, int]
    since: float
    notice: float
    domain: int
    members: list[tuple[int, int, int, tuple[int, ...], Request]] = field(default_factory=list)
    # What was expected when it was last looked at, and how the engine was told of it, by which rows of nodes.
    end: float = 0.0
    planned: Running | None = None
    index: Mapping[int, int] | None = None

    def plan(self, end: float, index: Mapping[int, int], bonds: Bonds | None) -> Running:
        """As the engine plans with it; what it was told before if nothing has changed, as most have not."""
        planned = self.planned
        if planned is not None and planned.end == end and self.index is index and bonds is None:
            return planned
        places = [
            (request if bonds is None else replace(request, bonds=bonds), index[node], cards)
            for _, _, node, cards, request in self.members
            if node in index
        ]
        planned = Running(self.job, self.queue, end, self.usage, places)
        if bonds is None:  # These follow the labels of others.
            self.planned, self.index = planned, index
        return planned

    def expect(self, times: RunTimes, now: float, *, stopping: bool) -> float:
        """When it is expected to end: by the 90 % quantile, and longer once it has outlived that."""
        if stopping:
            return min(max(self.end, now), now + self.notice + STOPS_SECONDS)
        if self.end <= now:
            self.end = self.since + times.estimate(self.tenant, self.name, self.limit).p90
            if self.end <= now:
                longer = float(self.quantiles(times, np.array([0.9]), now)[0])
                self.end = max(self.since + longer, now + STOPS_SECONDS)
        return self.end

    def quantiles(self, times: RunTimes, probabilities: Float64, now: float) -> Float64:
        """Seconds from its grant by which it has ended with each probability, given that it still runs."""
        return times.quantiles(self.tenant, self.name, self.limit, probabilities, elapsed=max(0.0, now - self.since))


_kept: dict[int, LiveRun] = {}
_lock = threading.Lock()

LIVE = "SELECT id, stop_reason <> '' FROM jobs_attempt WHERE state IN ('granted', 'running')"
ATTEMPTS = (
    "SELECT a.id, j.id, j.tenant_id, j.name, (j.spec->>'time_limit')::float8, j.priority, "
    "extract(epoch FROM j.submitted_at)::float8, j.equivalence, j.pool, g.quota_node_id, g.flavor, "
    "g.amounts, g.shares, "
    "extract(epoch FROM a.created_at)::float8, coalesce((j.spec->>'notice')::float8, 0), t.domain_id "
    "FROM jobs_attempt a JOIN jobs_grant g ON g.id = a.grant_id JOIN jobs_job j ON j.id = a.job_id "
    "JOIN tenants_tenant t ON t.id = j.tenant_id "
    "WHERE a.id = ANY(%s) AND g.released_at IS NULL"
)
MEMBERS = (
    "SELECT attempt_id, \"group\", rank, node_id, cpu_millicores, memory_bytes, storage_bytes, "
    "ARRAY(SELECT (share->>0)::int FROM jsonb_array_elements(gpus) share), coalesce((gpus->0->>1)::int, 1000) "
    "FROM jobs_placement WHERE attempt_id = ANY(%s) ORDER BY attempt_id, \"group\", rank"
)


def live_runs() -> list[tuple[LiveRun, bool]]:
    """Everybody who holds room, and whether it was told to stop; only attempts that are new are read in full."""
    global _kept
    with _lock, connection.cursor() as cursor:
        cursor.execute(LIVE)
        live = dict(cursor.fetchall())
        kept = {attempt: run for attempt, run in _kept.items() if attempt in live}
        fresh = [attempt for attempt in live if attempt not in kept]
        if fresh:
            cursor.execute(ATTEMPTS, [fresh])
            for *first, queue, flavor, amounts, shares, since, notice, domain in cursor.fetchall():
                usage = usage_of(flavor, json.loads(amounts), json.loads(shares) if shares else None)
                kept[first[0]] = LiveRun(*first, queue, flavor, usage, since, notice, domain)
            cursor.execute(MEMBERS, [fresh])
            for attempt, group, rank, node, cpu, memory, storage, cards, milli in cursor.fetchall():
                if attempt in kept:
                    request = Request(
                        cpu=cpu, memory=memory, storage=storage, gpu_count=len(cards), gpu_milli=milli,
                        consumer=kept[attempt].domain,
                    )
                    kept[attempt].members.append((group, rank, node, tuple(cards), request))
        _kept = kept
        return [(run, live[attempt]) for attempt, run in kept.items()]


def expected_ends(
    runs: Sequence[tuple[LiveRun, bool]],
    fleet: Fleet,
    tree: QuotaTree,
    times: RunTimes,
    now: datetime,
    bonds: Mapping[int, Bonds],
) -> list[Running]:
    """Those who run, as the engine plans with them.

    Fleet and tree were read a moment apart from the runs. A run that the tree does not count is left out, as
    nobody may get back more than is taken.
    """
    index, at = _rows(fleet), now.timestamp()
    times.look(((run.tenant, run.name) for run, _ in runs if run.end <= at), now)
    return [
        run.plan(run.expect(times, at, stopping=stopping) if stopping or run.end <= at else run.end, index, mine)
        for run, stopping in _counted(runs, tree)
        for mine in (bonds.get(run.job),)
    ]


_index: tuple[Int64, Mapping[int, int]] | None = None


def _rows(fleet: Fleet) -> Mapping[int, int]:
    """The row of each node by its id; the same object as long as there are the same nodes."""
    global _index
    kept = _index
    if kept is None or (kept[0] is not fleet.ids and not np.array_equal(kept[0], fleet.ids)):
        kept = _index = fleet.ids, {node: row for row, node in enumerate(fleet.ids.tolist())}
    return kept[1]


def _counted(runs: Sequence[tuple[LiveRun, bool]], tree: QuotaTree) -> Sequence[tuple[LiveRun, bool]]:
    """The runs that the tree counts: in each queue the first ones, as far as its usage goes."""
    sums: dict[int, dict[FlavorResource, int]] = {}
    for run, _ in runs:
        held = sums.get(run.queue)
        if held is None:
            held = sums[run.queue] = {}
        for fr, amount in run.usage.items():
            held[fr] = held.get(fr, 0) + amount
    over = {
        queue
        for queue, held in sums.items()
        if queue not in tree or any(amount > tree.usage(queue, fr) for fr, amount in held.items())
    }
    if not over:
        return runs
    left: dict[tuple[int, FlavorResource], int] = {}
    found = []
    for run, stopping in runs:
        counted = run.queue not in over or run.queue in tree
        for fr, amount in run.usage.items() if run.queue in over and counted else ():
            rest = left.setdefault((run.queue, fr), tree.usage(run.queue, fr)) - amount
            left[run.queue, fr] = rest
            counted = counted and rest >= 0
        if counted:
            found.append((run, stopping))
    return found
