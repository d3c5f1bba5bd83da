"""The present as a world of the simulator: what is free follows from who runs, so that it cannot disagree with it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from django.db import connection

from apps.fleet.models import Node
from apps.fleet.states import NodeState
from apps.jobs.budgets import binding, limits
from apps.jobs.commands.checkpoints import of_all
from apps.jobs.configuration import Configuration, configuration
from apps.jobs.models import Job as JobRow
from apps.jobs.models import Placement
from apps.jobs.requests import Groups, cache, lent_to, of_tenant
from apps.jobs.states import ATTEMPT_LIVE
from apps.quotas.queries import load_tree
from engine import simulate
from engine.backfill import Mode
from engine.budgets import Limit
from engine.company import Company
from engine.fleet import Fleet, NodeRow
from engine.kept import Kept
from engine.order import Reach
from engine.placement import expect, take_members
from engine.queues import QueueRules, Strategy
from engine.quota import FlavorResource, QuotaTree
from engine.snapshot import Candidate, PoolView

from .kept import load_kept
from .known import know
from .observe import DEPTH, ORDER, charged, expected_work, pool_view, queued
from .running import LiveRun, live_runs
from .runtimes import keys_of, run_times

# Which quantile of its run time each job is taken to run for.
RUN_TIMES = {"p50": 0.5, "p90": 0.9, "limit": 1.0}
# Jobs overtake each other as they age: so often over a horizon, and so often in time, this alone is looked at.
REORDERS = 500
REORDER_SECONDS = 2.0
POLICIES = (*(mode.value for mode in Mode), "fcfs", *(reach.value for reach in Reach))


@dataclass(slots=True)
class World:
    """Everything that a simulation starts from. `names` and `tenants` are of all its jobs, by their numbers.

    `limits` are the budgets that bind who may start; `owners` says of each job whose it is and of which workflow.
    """

    now: float
    configuration: Configuration
    fleet: Fleet
    rows: list[NodeRow]
    tree: QuotaTree
    started: list[simulate.Started]
    waiting: list[simulate.Job]
    names: dict[int, str] = field(default_factory=dict)
    tenants: dict[int, int] = field(default_factory=dict)
    limits: list[Limit] = field(default_factory=list)
    owners: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    kept: Mapping[int, Kept] = field(default_factory=dict)

    @property
    def jobs(self) -> list[simulate.Job]:
        """Those that run and those that wait."""
        return [*(item.job for item in self.started), *self.waiting]

    def queue(self, tenant: int) -> int:
        """The leaf of the quota tree that the tenant's jobs are charged to."""
        leaf = self.configuration.tenants[tenant].quota_node
        return leaf if leaf is not None else -tenant

    def owned(self, groups: Groups, tenant: int) -> Groups:
        """The groups of a tenant's job, as far as it matters whose it is; from the first such one on it is counted."""
        if groups[0][0].bonds is not None and self.fleet.company is None:
            self.fleet.company = Company(self.fleet.domains)
        return of_tenant(groups, tenant)

    def lent_to(self, groups: Groups, tenant: int, limit: float) -> Groups:
        """The same, as far as it matters to whom nodes are lent."""
        groups = self.owned(groups, tenant)
        if self.fleet.terms is None:
            return groups
        return lent_to(groups, self.configuration.tenants[tenant].domain, limit)

    def alike(self, equivalence: str, groups: Groups, tenant: int, limit: float) -> Hashable:
        """What is the same for all jobs that have the same groups."""
        bonded, lent = groups[0][0].bonds is not None, self.fleet.terms is not None
        return (equivalence, tenant if bonded else None, limit if lent else None) if bonded or lent else equivalence

    def budgets(self, job: int, tenant: int) -> tuple[int, ...]:
        """The limits that a job counts against."""
        owner, workflow = self.owners.get(job, (None, ""))
        configured = self.configuration
        return binding(configured.budgets, tenant, configured.tenants[tenant].domain, owner, workflow)

    def view(self, tenant: int, pool: str) -> str:
        """The name of a pool as the tenants of this one's domain see it."""
        return f"{pool}@{self.configuration.tenants[tenant].domain}" if pool in self.configuration.pools else pool


def load_world(now: datetime, *, run_time: float = 0.5) -> World:
    """Read it. A job runs for this quantile of its run time (1.0: until its time limit).

    Held jobs are left out, as somebody has to release them first; those that wait before another try come then.
    """
    configured = configuration(now)
    runs, (pending, _, _) = live_runs(), queued(now)
    later = _due_later(now)
    know({run.equivalence for run, _ in runs} | {row.equivalence for row in pending} | {row[5] for row in later})
    ready = set(Node.objects.filter(state=NodeState.READY).values_list("pk", flat=True))
    rows = [replace(lent.row, ready=pk in ready) for pk, lent in sorted(configured.lent.items())]
    fleet = Fleet.build(rows)
    fleet.terms = fleet.terms and fleet.terms.at(now.timestamp())
    if fleet.gpu_free.shape[1] and pending:
        expect(fleet, expected_work(pending))
    world = World(now.timestamp(), configured, fleet, rows, load_tree(configured.quota_nodes), [], [])
    if configured.budgets:
        world.limits = limits(configured.budgets, now)
        numbers = [*(run.job for run, _ in runs), *(row.job for row in pending), *(row[0] for row in later)]
        owners = JobRow.objects.filter(pk__in=numbers).order_by().values_list("pk", "owner_id", "workflow")
        world.owners = {job: (owner, workflow) for job, owner, workflow in owners}
    run_times().look(
        [(run.tenant, run.name) for run, _ in runs] + [(row.tenant, row.name) for row in pending], now
    )
    _take(world, [run for run, _ in runs], run_time)
    taken = {run.job for run, _ in runs}
    for row in pending:
        if row.job not in taken:
            groups, amounts = cache()[row.equivalence]
            number = (row.job, row.tenant, row.name, row.limit, row.priority, row.equivalence, row.pool, row.failures)
            submitted = row.submitted.timestamp()
            world.waiting.append(_job(world, number, groups, amounts, submitted, submitted, run_time))
    for *number, submitted, due in later:
        groups, amounts = cache()[number[5]]
        world.waiting.append(_job(world, tuple(number), groups, amounts, submitted, due, run_time))
    world.kept = load_kept(fleet, (job.candidate for job in world.waiting))
    return world


def _due_later(now: datetime) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, tenant_id, name, (spec->>'time_limit')::float8, priority, equivalence, pool, failures, "
            "extract(epoch FROM submitted_at)::float8, extract(epoch FROM not_before)::float8 "
            "FROM jobs_job WHERE state = 'pending' AND NOT held AND not_before > %s ORDER BY id LIMIT 10000",
            [now],
        )
        return cursor.fetchall()


def _job(
    world: World,
    row: tuple[Any, ...],
    groups: Groups,
    amounts: dict[str, int],
    submitted: float,
    due: float,
    run_time: float,
) -> simulate.Job:
    number, tenant, name, limit, priority, equivalence, pool, failures = row
    world.names[number], world.tenants[number] = name, tenant
    queue = world.queue(tenant)
    candidate = Candidate(
        job=number,
        queue=queue,
        priority=world.configuration.priority(queue, priority),
        submitted=submitted,
        groups=world.lent_to(groups, tenant, limit),
        amounts=charged(world.tree, queue, amounts),
        pool=world.view(tenant, pool),
        not_before=due if due > world.now else 0.0,
        attempts=failures,
        equivalence=world.alike(equivalence, groups, tenant, limit),
        minimums=cache().minimums(equivalence),
        budgets=world.budgets(number, tenant),
    )
    return simulate.Job(candidate, _seconds(tenant, name, limit, run_time), limit, keys_of(tenant, name))


def _seconds(tenant: int, name: str, limit: float, run_time: float, elapsed: float = 0.0) -> float:
    if run_time >= 1.0:
        return limit
    return float(run_times().quantiles(tenant, name, limit, np.array([run_time]), elapsed=elapsed)[0])


def _take(world: World, runs: Sequence[LiveRun], run_time: float) -> None:
    """Let those who run hold what they hold: nodes, and quota in place of what the ledger says."""
    index = {int(node_id): row for row, node_id in enumerate(world.fleet.ids)}
    usage: dict[int, dict[FlavorResource, int]] = {}
    saved = _checkpoints()
    for run in runs:
        groups = world.lent_to(cache()[run.equivalence][0], run.tenant, run.limit)
        world.names[run.job], world.tenants[run.job] = run.name, run.tenant
        candidate = Candidate(
            job=run.job,
            queue=run.queue,
            priority=world.configuration.priority(run.queue, run.priority),
            submitted=run.submitted,
            groups=groups,
            amounts=_by_resource(run.usage),
            pool=world.view(run.tenant, run.pool),
            equivalence=world.alike(run.equivalence, groups, run.tenant, run.limit),
            budgets=world.budgets(run.job, run.tenant),
        )
        members = tuple(
            (group, rank, index[node], cards) for group, rank, node, cards, _ in run.members if node in index
        )
        take_members(world.fleet, groups, members)
        mine = usage.setdefault(run.queue, {})
        for fr, amount in run.usage.items():
            mine[fr] = mine.get(fr, 0) + amount
        elapsed = max(0.0, world.now - run.since)
        seconds = _seconds(run.tenant, run.name, run.limit, run_time, elapsed)
        job = simulate.Job(candidate, seconds, run.limit, keys_of(run.tenant, run.name))
        world.started.append(simulate.Started(job, run.since, run.flavor, members, saved.get(run.attempt), run.usage))
    for node in world.tree.nodes:
        if not world.tree.children(node):
            mine = usage.get(node, {})
            world.tree.remove(node, {fr: world.tree.usage(node, fr) for fr in {*world.tree.frs(), *mine}})
            world.tree.add(node, mine)


def _by_resource(usage: Mapping[FlavorResource, int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for (_, resource), amount in usage.items():
        sums[resource] = sums.get(resource, 0) + amount
    return sums


def _checkpoints() -> dict[int, float]:
    """From when on live attempts can go on, of those that have written any checkpoint."""
    written: dict[int, list[datetime | None]] = {}
    rows = Placement.objects.filter(state__in=sorted(ATTEMPT_LIVE), checkpoint_at__isnull=False)
    for attempt, at in rows.values_list("attempt_id", "checkpoint_at"):
        written.setdefault(attempt, []).append(at)
    return {attempt: at.timestamp() for attempt, times in written.items() if (at := of_all(times)) is not None}


def views(world: World, fleet: Fleet, jobs: Iterable[simulate.Job], like: dict[int, int]) -> dict[str, PoolView]:
    """The pools that these jobs ask for; a node that is added (row → row) is wherever the one that it is like is."""
    found = {}
    for name in {job.candidate.pool for job in jobs}:
        pool, _, domain = name.rpartition("@")
        if pool in world.configuration.pools:
            view = pool_view(fleet, world.configuration.pools[pool], int(domain))
            for mask in (view.nodes, *(nodes for _, nodes in view.flavors)):
                for added, model in like.items():
                    mask[added] = mask[model]
            found[name] = view
    return found


def policy_named(configured: Configuration, name: str | None) -> simulate.QueuePolicy:
    """How the queue is served: as it is now, or everywhere in one mode or with one reach of priority, and the rest as
    it is now; `fcfs` is strict queues in order of age."""
    domains = {row.domain for row in configured.tenants.values()}
    pools = {f"{name}@{domain}": pool for name, pool in configured.pools.items() for domain in domains}
    policy = simulate.QueuePolicy(
        modes={view: pool.backfill for view, pool in pools.items()},
        across=frozenset(view for view, pool in pools.items() if pool.reach is Reach.ACROSS),
        order=ORDER,
        rules=configured.rules,
        minimum_runs={queue: float(seconds) for queue, seconds in configured.minimum_run.items()},
        depth=DEPTH,
    )
    if name is None:
        return policy
    if name in list(Reach):
        return replace(policy, across=frozenset(pools) if name == Reach.ACROSS else frozenset())
    if name != "fcfs":
        return replace(policy, mode=Mode(name), modes={})
    leaves = {row.quota_node for row in configured.tenants.values() if row.quota_node is not None}
    rules = {
        leaf: replace(configured.rules.get(leaf, QueueRules()), strategy=Strategy.STRICT_FIFO) for leaf in leaves
    }
    return replace(policy, mode=Mode.NONE, modes={}, order=None, rules=rules)


def simulated(
    world: World,
    policy: simulate.QueuePolicy,
    *,
    until: float,
    added: Sequence[simulate.Job] = (),
    changes: Sequence[simulate.Change] = (),
    fleet: Fleet | None = None,
    like: dict[int, int] | None = None,
    check: Callable[[], None] = lambda: None,
) -> simulate.Simulation:
    """Run the world up to a time."""
    fleet = world.fleet if fleet is None else fleet
    if fleet is not world.fleet and world.fleet.company is not None:
        fleet.company = world.fleet.company.on(fleet.domains)
    made = simulate.Simulation(
        fleet=fleet,
        pools=views(world, fleet, [*world.jobs, *added], like or {}),
        tree=world.tree,
        jobs=[*world.waiting, *added],
        policy=policy,
        start=world.now,
        started=world.started,
        kept=world.kept,
        changes=changes,
        limits=world.limits,
        history=run_times().copy(),
        reorder=max(REORDER_SECONDS, (until - world.now) / REORDERS),
        suspended=frozenset(world.queue(pk) for pk, row in world.configuration.tenants.items() if row.suspended),
    )
    made.run(until, check=check)
    return made
