"""What would have been: the jobs of a recorded period, decided again under other policies. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Invalid
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
    "ELSE 'done' END ORDER BY a.token) "
    "FROM (SELECT * FROM jobs_job WHERE ended_at >= %s AND ended_at < %s ORDER BY ended_at LIMIT %s) j "
    "JOIN jobs_attempt a ON a.job_id = j.id WHERE a.ended_at IS NOT NULL "
    "GROUP BY j.id, j.tenant_id, j.name, j.spec, j.priority, j.equivalence, j.pool, j.submitted_at ORDER BY j.id"
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


def replay(*, actor: Actor, since: datetime, until: datetime, policies: Sequence[str]) -> Replayed:
    """Run the jobs that ended in a period again, each with the length of its last attempt.

    They come when they came, to the nodes and quotas of today with nothing on them; what jobs took is learnt on the
    way. Raises Forbidden, and Invalid for a period that is empty or too large.
    """
    simulations.require(actor, "replay", "of what everybody did")
    if until <= since:
        raise Invalid.field("until", "must be after `since`.", "invalid_period")
    with transaction.atomic():
        read_only()
        period = _load(since, until)
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


def _load(since: datetime, until: datetime) -> _Period:
    configured = configuration(timezone.now())
    rows = [replace(lent.row, ready=True) for _, lent in sorted(configured.lent.items())]
    world = World(since.timestamp(), configured, Fleet.build(rows), rows, QuotaTree(configured.quota_nodes, {}), [], [])
    with connection.cursor() as cursor:
        cursor.execute(ENDED, [since, until, REPLAYED_MAX + 1])
        found: list[tuple[Any, ...]] = cursor.fetchall()
    refuse_above("since", len(found), REPLAYED_MAX, "jobs or more ended in this period")
    know({row[5] for row in found})
    jobs, recorded, left_out = [], [], 0
    for number, tenant, name, limit, priority, likeness, pool, submitted, starts, ends, how in found:
        queue = world.queue(tenant) if tenant in configured.tenants else None
        if queue is None or queue not in world.tree or pool not in configured.pools:
            left_out += 1
            continue
        groups, amounts = cache()[likeness]
        groups = world.owned(groups, tenant)
        candidate = Candidate(
            job=number,
            queue=queue,
            priority=priority,
            submitted=submitted,
            groups=groups,
            amounts=charged(world.tree, queue, amounts),
            pool=world.view(tenant, pool),
            equivalence=world.alike(likeness, groups, tenant, limit),
            minimums=cache().minimums(likeness),
        )
        seconds = max(0.001, ends[-1] - starts[-1])
        jobs.append(simulate.Job(candidate, seconds, max(limit, seconds), keys_of(tenant, name)))
        spans = list(zip(starts, ends, how, strict=True))
        recorded.append(Ran(queue, submitted, candidate.amounts, spans))
    return _Period(world, jobs, recorded, left_out)
