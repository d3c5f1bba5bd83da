"""Observe: the rows become a snapshot that the engine decides on."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache as cache_once
from typing import Any

import numpy as np
from django.db import connection

from apps.core import loops
from apps.fleet.membership import PoolMembers
from apps.fleet.snapshot import present_fleet
from apps.jobs.budgets import allowances, binding, next_period
from apps.jobs.configuration import Configuration, TenantRow, configuration
from apps.jobs.models import Job
from apps.jobs.requests import cache, groups_of
from apps.quotas.queries import load_tree
from engine.backfill import Plan
from engine.estimates import Estimate
from engine.fleet import Fleet
from engine.fragmentation import Arrivals, Mix
from engine.order import OrderPolicy, Reach, points
from engine.placement import expect
from engine.quota import QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, PoolView, Snapshot

from .company import keep_company
from .holders import load_held
from .kept import load_kept
from .lending import present_terms
from .running import expected_ends, live_runs
from .runtimes import run_times

# Queued jobs looked at in one cycle, in the order of priority and age.
CANDIDATES_MAX = 20_000
# Grants of one cycle; more follow in the next pass at once, so that their jobs start meanwhile.
GRANTS_MAX = 200
# When more are queued: of jobs of one tenant, person and workflow that ask for the same, the first so many stand for
# all. A cycle grants no more than that (GRANTS_MAX), and where one of them is refused, those behind it would be too.
ALIKE_MAX = 200
# Jobs that a start is reserved for at most, in a pool that reserves for everyone.
DEPTH = 100
ORDER = OrderPolicy()
# How old the estimate of a run time may be.
ESTIMATE_SECONDS = 1.0
# What a job is stored to wait for if it was passed by before.
WAITING = frozenset(
    {
        Reason.WAITING_FOR_CAPACITY,
        Reason.WAITING_FOR_QUOTA,
        Reason.WAITING_FOR_PREEMPTION,
        Reason.BEHIND_IN_QUEUE,
        Reason.BUDGET_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class Observed:
    """The snapshot, what is stored about its pending jobs (reason, detail), and the configuration behind it.

    `partial` says that jobs stand for others like them, which were not read.
    """

    snapshot: Snapshot
    pending: dict[int, tuple[str, str]]
    configuration: Configuration
    expected: "Expected"
    partial: bool = False


def observe(now: datetime, *, told: bool = True) -> Observed | None:
    """Read everything that a cycle needs; None when no job waits. `told` says that people hear of reserved starts."""
    rows, due, partial = queued(now)
    if due is not None:
        loops.wake_at("schedule", due)
    if not rows:
        return None
    known = cache()
    missing = known.missing({row.equivalence for row in rows})
    if missing:
        first = {row.equivalence: row.job for row in reversed(rows) if row.equivalence in missing}
        for equivalence, spec in Job.objects.filter(pk__in=first.values()).values_list("equivalence", "spec"):
            known.add(equivalence, spec)
    configured = configuration(now)
    fleet = present_fleet(configured.fleet, present_terms(configured, now))
    if fleet.terms is not None:
        for opening in fleet.terms.openings((now + loops.AHEAD).timestamp())[:1]:
            loops.wake_at("schedule", datetime.fromtimestamp(opening, UTC))
    if fleet.gpu_free.shape[1]:
        expect(fleet, expected_work(rows))
    tree = load_tree(configured.quota_nodes)
    views = {
        f"{name}@{domain}": _kept_view(configured, name, domain)
        for name, domain in {(row.pool, configured.tenants[row.tenant].domain) for row in rows}
        if name in configured.pools
    }
    for row in rows:
        if row.configuration is not configured:
            row.configuration, row.candidate = configured, _candidate(row, configured, tree)
    candidates = [row.candidate for row in rows if row.candidate is not None]
    bonds = keep_company(fleet, candidates)
    held = load_held(configured, fleet, now, bonds)
    expected = Expected(rows, now)
    plan = Plan(
        running=cache_once(lambda: expected_ends(live_runs(), fleet, tree, run_times(), now, bonds)),
        durations=expected,
        points=_points(rows, candidates, tree, expected, now),
        depth=DEPTH,
        modes={view: configured.pools[view.rpartition("@")[0]].backfill for view in views},
        told=told,
        kept=load_kept(fleet, candidates),
    )
    allowed = allowances(configured.budgets, now)
    if (begins := next_period(configured.budgets, allowed, now)) is not None and begins <= now + loops.AHEAD:
        loops.wake_at("schedule", begins)
    snapshot = Snapshot(
        fleet=fleet,
        pools=views,
        tree=tree,
        candidates=candidates,
        suspended=frozenset(
            _queue(tenant, row) for row in rows if (tenant := configured.tenants[row.tenant]).suspended
        ),
        rules=configured.rules,
        holders=held.holders,
        places=held.places,
        claims=held.claims,
        yields=held.yields,
        plan=plan,
        allowances=allowed,
        across=frozenset(view for view in views if configured.pools[view.rpartition("@")[0]].reach is Reach.ACROSS),
    )
    return Observed(
        snapshot=snapshot,
        pending={row.job: (row.reason, row.detail) for row in rows},
        configuration=configured,
        expected=expected,
        partial=partial,
    )


def _points(
    rows: "Sequence[QueuedJob]", candidates: Sequence[Candidate], tree: QuotaTree, expected: "Expected", now: datetime
) -> Mapping[int, float]:
    """The order once somebody has had to wait; before that it is by priority and age, and costs nothing."""
    if not any(row.reason in WAITING for row in rows):
        return {}
    halves = {job: expected.estimate(job).p50 for job in expected}
    return points(ORDER, candidates, tree, now=now.timestamp(), expected=halves)


class Expected(Mapping[int, float]):
    """Seconds that pending jobs are planned for: the 90 % quantile of what jobs like them took.

    Nothing is read before the first is asked for, and what was, no more than ESTIMATE_SECONDS ago, is not again.
    """

    def __init__(self, rows: "Sequence[QueuedJob]", now: datetime) -> None:
        self._rows, self._now, self._looked = {row.job: row for row in rows}, now, False
        self._known = _estimates()

    def estimate(self, job: int) -> Estimate:
        """The quantiles with their basis. Raises KeyError for a job that is not pending."""
        row = self._rows[job]
        key = (row.tenant, row.name, row.limit)
        estimate = self._known.get(key)
        if estimate is None:
            if not self._looked:
                self._looked = True
                run_times().look(((row.tenant, row.name) for row in self._rows.values()), self._now)
            estimate = self._known[key] = run_times().estimate(*key)
        return estimate

    def row(self, job: int) -> "QueuedJob":
        """What is stored about a pending job."""
        return self._rows[job]

    def __getitem__(self, job: int) -> float:
        return self.estimate(job).p90

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


_estimated: tuple[float, dict[tuple[int, str, float], Estimate]] = (0.0, {})


def _estimates() -> dict[tuple[int, str, float], Estimate]:
    """Those made in the last ESTIMATE_SECONDS, by tenant, name and time limit."""
    global _estimated
    clock = time.monotonic()
    if clock - _estimated[0] > ESTIMATE_SECONDS:
        _estimated = clock, {}
    return _estimated[1]


@dataclass(slots=True)
class QueuedJob:
    """A pending job's row as it was at `version`, and what the engine was last given of it."""

    version: str
    job: int
    tenant: int
    priority: int
    submitted: datetime
    equivalence: str
    pool: str
    failures: int
    reason: str
    detail: str
    name: str
    limit: float
    owner: int | None = None
    workflow: str = ""
    configuration: Configuration | None = None
    candidate: Candidate | None = None


_kept: dict[int, QueuedJob] = {}

# Learnt from the jobs of this portal; a process that starts learns from the latest ones.
_arrivals: Arrivals | None = None
_last_arrival = 0
LATEST_JOBS = 5_000


def expected_work(rows: Sequence[QueuedJob]) -> Mix | None:
    """The mix of the requests that have arrived so far, those in `rows` included."""
    global _arrivals, _last_arrival
    known = cache()
    if _arrivals is None:
        _arrivals = Arrivals()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT max(id), count(*), (array_agg(spec))[1] FROM (SELECT id, equivalence, spec FROM jobs_job "
                "WHERE id < %s ORDER BY id DESC LIMIT %s) AS latest GROUP BY equivalence ORDER BY 1",
                [min(row.job for row in rows), LATEST_JOBS],
            )
            for _, count, spec in cursor.fetchall():
                for request, members in groups_of(spec if isinstance(spec, dict) else json.loads(spec)):
                    _arrivals.see(request, members * count)
    for row in sorted(rows, key=lambda row: row.job):
        if row.job > _last_arrival:
            _last_arrival = row.job
            for request, members in known[row.equivalence][0]:
                _arrivals.see(request, members)
    return _arrivals.mix


QUEUED = (
    "SELECT id, xmin::text, CASE WHEN not_before > %s THEN not_before END AS due FROM jobs_job "
    "WHERE state = 'pending' AND NOT held AND (not_before IS NULL OR not_before <= %s) "
    "ORDER BY due NULLS FIRST, priority DESC, id LIMIT %s"
)
# Every kind of request comes before the second job of any; of more kinds than there is room, others come each time.
STANDING_FOR_ALL = (
    "SELECT id, version, NULL FROM ("
    " SELECT id, xmin::text AS version, priority, row_number() OVER ("
    "  PARTITION BY tenant_id, owner_id, workflow, pool, equivalence ORDER BY priority DESC, id) AS place"
    " FROM jobs_job WHERE state = 'pending' AND NOT held AND (not_before IS NULL OR not_before <= %s)"
    ") AS j WHERE place <= %s ORDER BY place, priority DESC, hashint8extended(id, %s) LIMIT %s"
)


def queued(now: datetime) -> tuple[list[QueuedJob], datetime | None, bool]:
    """The pending jobs that may start now; when the next of those that wait for a time may; and whether some of these
    jobs stand for others like them.

    Only rows that changed are read: `xmin` is the transaction that wrote a row, so as long as it stands still, so
    does the row.
    """
    global _kept
    with connection.cursor() as cursor:
        cursor.execute(QUEUED, [now, now + loops.AHEAD, CANDIDATES_MAX + 1])
        found = cursor.fetchall()
        partial = len(found) > CANDIDATES_MAX
        if partial:
            cursor.execute(STANDING_FOR_ALL, [now, ALIKE_MAX, int(now.timestamp()), CANDIDATES_MAX])
            found = cursor.fetchall()
        due = min((at for _, _, at in found if at is not None), default=None)
        versions = {pk: version for pk, version, at in found if at is None}
        kept = {pk: row for pk, row in _kept.items() if versions.get(pk) == row.version}
        changed = [pk for pk in versions if pk not in kept]
        if changed:
            cursor.execute(
                "SELECT xmin::text, id, tenant_id, priority, submitted_at, equivalence, pool, failures, reason, "
                "detail, name, (spec->>'time_limit')::float8, owner_id, workflow FROM jobs_job WHERE id = ANY(%s)",
                [changed],
            )
            kept.update((row[1], QueuedJob(*row)) for row in cursor.fetchall())
    _kept = kept
    return [kept[pk] for pk in versions if pk in kept], due, partial


def _queue(tenant: TenantRow, row: QueuedJob) -> int:
    return tenant.quota_node if tenant.quota_node is not None else -row.tenant


def _candidate(row: QueuedJob, configured: Configuration, tree: QuotaTree) -> Candidate:
    tenant = configured.tenants[row.tenant]
    queue = _queue(tenant, row)
    lent = (tenant.domain, row.limit) if configured.fleet.terms is not None else None
    groups, equivalence = cache().owned(row.equivalence, row.tenant, lent)
    _, amounts = cache()[row.equivalence]
    return Candidate(
        job=row.job,
        queue=queue,
        priority=configured.priority(queue, row.priority),
        submitted=row.submitted.timestamp(),
        groups=groups,
        amounts=charged(tree, queue, amounts),
        pool=f"{row.pool}@{tenant.domain}" if row.pool in configured.pools else row.pool,
        attempts=row.failures,
        equivalence=equivalence,
        minimums=cache().minimums(row.equivalence),
        budgets=binding(configured.budgets, row.tenant, tenant.domain, row.owner, row.workflow),
    )


def charged(tree: QuotaTree, queue: int, amounts: dict[str, int]) -> dict[str, int]:
    """What of the amounts the queue is charged: storage only where it has a storage quota."""
    if "storage" not in amounts or queue not in tree:
        return amounts
    if any(resource == "storage" for _, resource in tree.nodes[queue].limits):
        return amounts
    return {resource: amount for resource, amount in amounts.items() if resource != "storage"}


_views: tuple[Configuration, dict[tuple[str, int], PoolView]] | None = None


def _kept_view(configured: Configuration, name: str, domain_id: int) -> PoolView:
    """`pool_view` of the present fleet, kept as long as the configuration."""
    global _views
    if _views is None or _views[0] is not configured:
        _views = configured, {}
    known = _views[1]
    if (name, domain_id) not in known:
        known[name, domain_id] = pool_view(configured.fleet, configured.pools[name], domain_id)
    return known[name, domain_id]


def pool_view(fleet: Fleet, pool: PoolMembers, domain_id: int) -> PoolView:
    """A pool as the tenants of one domain see it: only nodes that are lent to them."""
    index = {int(node_id): row for row, node_id in enumerate(fleet.ids)}

    def mask(node_ids: list[int]) -> Any:
        chosen = np.zeros(len(fleet), dtype=np.bool_)
        chosen[[index[pk] for pk in node_ids if pk in index and pool.lends(pk, domain_id)]] = True
        return chosen

    return PoolView(nodes=mask(pool.nodes), flavors=[(name, mask(nodes)) for name, nodes in pool.flavors])
