"""What would have been: the jobs of a recorded period, decided again under other policies. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.jobs.budgets import binding
from apps.jobs.configuration import configuration
from apps.jobs.requests import cache
from engine import simulate
from engine.estimates import History
from engine.fleet import Fleet
from engine.outcomes import Outcomes, Ran, outcomes, ran
from engine.quota import QuotaTree
from engine.snapshot import Candidate

from .changes import refuse_above
from .known import know
from .observe import charged
from .past import Budgets, budgets_of, lending_of
from .policies import simulations
from .runtimes import RUNS, keys_of
from .simulation import capacity_over, deadline, read_only
from .world import World, policy_named, views

REPLAYED_MAX = 5_000

ENDED = (
    "SELECT j.id, j.tenant_id, j.name, (j.spec->>'time_limit')::float8 AS limit, j.priority, j.equivalence, j.pool, "
    "extract(epoch FROM j.submitted_at)::float8, "
    "array_agg(extract(epoch FROM a.created_at)::float8 ORDER BY a.token), "
    "array_agg(extract(epoch FROM a.ended_at)::float8 ORDER BY a.token), "
    "array_agg(CASE WHEN a.state = 'lost' THEN 'lost' WHEN a.token < j.token AND a.stop_reason = 'preempted' "
    "THEN 'preempted' WHEN a.token < j.token THEN 'failed' WHEN a.end_reason = 'time_limit' THEN 'limit' "
    "ELSE 'done' END ORDER BY a.token), j.owner_id, j.workflow "
    "FROM (SELECT * FROM jobs_job WHERE ended_at >= %s AND ended_at < %s ORDER BY ended_at LIMIT %s) j "
    "JOIN jobs_attempt a ON a.job_id = j.id WHERE a.ended_at IS NOT NULL "
    "GROUP BY j.id, j.tenant_id, j.name, j.spec, j.priority, j.equivalence, j.pool, j.submitted_at, j.owner_id, "
    "j.workflow ORDER BY j.id"
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The figures of what was recorded, and of each policy by name."""

    since: datetime
    until: datetime
    jobs: int
    nodes: int
    left_out: int
    recorded: Outcomes
    policies: dict[str, Outcomes]


@dataclass(frozen=True, slots=True)
class _Period:
    """Jobs as the simulator's, and how each really went."""

    world: World
    jobs: list[simulate.Job]
    recorded: list[Ran]
    left_out: int
    budgets: Budgets


def replay(
    *, actor: Actor, since: datetime, until: datetime, policies: Sequence[str], budgets: str = "then",
    lending: str = "then",
) -> Replayed:  # fmt: skip
    """Run the jobs that ended in a period again, each with the length of its last attempt.

    They come when they came, to the nodes and quotas of today with nothing on them, under the budgets and terms of
    lending of then or of now, or under none (`past.TIMES`); what jobs took is learnt on the way. Raises Forbidden, and
    Invalid for a period that is empty or too large.
    """
    simulations.require(actor, "replay", "of what everybody did")
    if until <= since:
        raise Invalid.field("until", "must be after `since`.", "invalid_period")
    with transaction.atomic():
        read_only()
        period = _load(since, until, budgets, lending)
        if not period.jobs:
            raise Invalid.field("since", "no job that ran has ended in this period.", "nothing_to_replay")
        start = min(job.candidate.submitted for job in period.jobs)
        end = max(item.spans[-1][1] for item in period.recorded)
        check = deadline("ask for a shorter period or fewer policies")
        weights = {node.id: node.weight for node in period.world.tree.nodes.values()}
        capacity = capacity_over(period.world.fleet, (), start, end)

        def figures(runs: Sequence[Ran]) -> Outcomes:
            return outcomes(runs, start=start, end=end, capacity=capacity, weights=weights)

        found = {}
        for name in dict.fromkeys(policies):
            policy = policy_named(period.world.configuration, None if name == "present" else name)
            made = simulate.Simulation(
                fleet=period.world.fleet,
                pools=views(period.world, period.world.fleet, period.jobs, {}),
                tree=period.world.tree,
                jobs=period.jobs,
                policy=policy,
                start=start,
                history=History(window=RUNS),
                limits=period.budgets.limits,
                changes=period.budgets.changes,
            )
            made.run(check=check)
            found[name] = figures([ran(job, made.records[job.candidate.job]) for job in period.jobs])
        return Replayed(
            since=since,
            until=until,
            jobs=len(period.jobs),
            nodes=len(period.world.fleet),
            left_out=period.left_out,
            recorded=figures(period.recorded),
            policies=found,
        )


def _load(since: datetime, until: datetime, budgets: str, lending: str) -> _Period:
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(ENDED, [since, until, REPLAYED_MAX + 1])
        found: list[tuple[Any, ...]] = cursor.fetchall()
    first = datetime.fromtimestamp(min((row[7] for row in found), default=since.timestamp()), UTC)
    configured = lending_of(lending, configuration(now), first, now)
    in_force = budgets_of(budgets, configured, first, until)
    rows = [replace(lent.row, ready=True) for _, lent in sorted(configured.lent.items())]
    fleet = Fleet.build(rows)
    fleet.terms = fleet.terms and fleet.terms.at(first.timestamp())
    world = World(first.timestamp(), configured, fleet, rows, QuotaTree(configured.quota_nodes, {}), [], [])
    refuse_above("since", len(found), REPLAYED_MAX, "jobs or more ended in this period")
    know({row[5] for row in found})
    jobs, recorded, left_out = [], [], 0
    for number, tenant, name, limit, priority, likeness, pool, submitted, starts, ends, how, owner, workflow in found:
        queue = world.queue(tenant) if tenant in configured.tenants else None
        if queue is None or queue not in world.tree or pool not in configured.pools:
            left_out += 1
            continue
        groups, amounts = cache()[likeness]
        groups = world.owned(groups, tenant)
        candidate = Candidate(
            job=number,
            queue=queue,
            priority=configured.priority(queue, priority),
            submitted=submitted,
            groups=world.lent_to(groups, tenant, limit),
            amounts=charged(world.tree, queue, amounts),
            pool=world.view(tenant, pool),
            equivalence=world.alike(likeness, groups, tenant, limit),
            minimums=cache().minimums(likeness),
            budgets=binding(in_force.rows, tenant, configured.tenants[tenant].domain, owner, workflow),
        )
        seconds = max(0.001, ends[-1] - starts[-1])
        jobs.append(simulate.Job(candidate, seconds, max(limit, seconds), keys_of(tenant, name)))
        spans = list(zip(starts, ends, how, strict=True))
        recorded.append(Ran(queue, submitted, candidate.amounts, spans))
    return _Period(world, jobs, recorded, left_out, in_force)
