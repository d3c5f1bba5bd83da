"""What tasks would cost, by what they took in the latest runs of their workflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import connection

from .clearing import ClearPlan

# Latest runs that are looked at.
RUNS_SEEN = 10

# A node's hour costs the highest price that the terms of its cluster ask, as in placement; a card counts by the
# thousandths given. Tries that were cleared count like others: a clear does not make its own task unknown.
_TAKEN = """
WITH latest AS (
  SELECT id FROM workflows_run WHERE workflow_id = %s AND (state <> 'queued' OR edits > 0) ORDER BY id DESC LIMIT %s
), done AS (
  SELECT t.run_id, t.name, t.index, t.job_id FROM latest JOIN workflows_task t ON t.run_id = latest.id
  UNION SELECT y.run_id, y.name, y.index, y.job_id FROM latest JOIN workflows_tasktry y ON y.run_id = latest.id
), price AS (
  SELECT cluster_id, max(price_per_cpu_hour) AS cpu, max(price_per_gpu_hour) AS gpu
  FROM fleet_contribution GROUP BY cluster_id
), taken AS (
  SELECT done.*, extract(epoch FROM p.ended_at - p.started_at) / 3600 AS hours,
         p.cpu_millicores / 1000.0 AS cores, coalesce(price.cpu, 0) AS cpu, coalesce(price.gpu, 0) AS gpu,
         (SELECT coalesce(sum((card ->> 1)::numeric), 0) / 1000 FROM jsonb_array_elements(p.gpus) card) AS cards
  FROM done JOIN jobs_job j ON j.id = done.job_id AND j.state IN ('succeeded', 'failed')
  JOIN jobs_attempt a ON a.job_id = j.id JOIN jobs_placement p ON p.attempt_id = a.id
  JOIN fleet_node n ON n.id = p.node_id LEFT JOIN price ON price.cluster_id = n.cluster_id
  WHERE p.started_at IS NOT NULL AND p.ended_at IS NOT NULL
)
SELECT name, count(DISTINCT (run_id, index))::float / count(DISTINCT run_id),
       (sum(hours) / count(DISTINCT job_id))::float, (sum(hours * cores) / count(DISTINCT job_id))::float,
       (sum(hours * (cores * cpu + cards * gpu)) / count(DISTINCT job_id))::float
FROM taken GROUP BY name
"""


@dataclass(frozen=True, slots=True)
class Usual:
    """What one task takes in a run on average: instances, hours of its processes, of cores, and money."""

    instances: float
    task_hours: float
    cpu_hours: float
    money: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What work would take. `money` is None where nothing has a price; `unknown` are the tasks without a history, for
    which nothing is counted."""

    task_hours: float = 0.0
    cpu_hours: float = 0.0
    money: float | None = None
    unknown: tuple[str, ...] = field(default=())


def usual(workflow_id: int) -> dict[str, Usual]:
    """What each task of a workflow took in its latest runs: by job, attempts that failed or were lost included."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKEN, [workflow_id, RUNS_SEEN])
        return {
            name: Usual(instances, *(instances * each for each in (hours, cpu, money)))
            for name, instances, hours, cpu, money in cursor.fetchall()
        }


def of_times(known: Mapping[str, Usual], shares: Mapping[str, float]) -> Estimate:
    """The cost of running each task so many times."""
    found = [(known[name], share) for name, share in shares.items() if name in known]
    money = sum(each.money * share for each, share in found)
    return Estimate(
        task_hours=sum(each.task_hours * share for each, share in found),
        cpu_hours=sum(each.cpu_hours * share for each, share in found),
        money=money or None,
        unknown=tuple(name for name in shares if name not in known),
    )


def of_clear(plan: ClearPlan, jobless: frozenset[str]) -> Estimate:
    """The cost of what a clear lets run; tasks in `jobless` take nothing."""
    known = usual(plan.run.workflow_id)
    shares = {name: 1.0 for name in (*plan.whole, *plan.added) if name not in jobless}
    for name, instances in plan.instances.items():
        count = len(instances) + plan.to_come.get(name, 0)
        shares[name] = count / known[name].instances if name in known else float(count)
    return of_times(known, shares)
