"""Workflows and runs of the largest size that pages open at once, written as rows: no loop is there to run them."""

from typing import Any

from django.db import connection

from apps.core.actors import Actor
from apps.tenants.models import Tenant
from apps.workflows import commands
from apps.workflows.models import Run, Workflow
from apps.workflows.plans import plan_of

RUNS = 10_000
TASKS = 10_000


def small_definition(name: str) -> dict[str, Any]:
    """Six tasks, one of them mapped."""
    kinds = {"extract": [], "clean": ["extract"], "train": ["clean"], "score": ["train"], "report": ["score"]}
    tasks: list[dict[str, Any]] = [
        {"id": task, "kind": "bash", "script": "true", "upstream": upstream} for task, upstream in kinds.items()
    ]
    over = {"part": {"value": [1, 2, 3]}}
    mapped = {"id": "check", "kind": "bash", "script": "true", "map": {"over": over}}
    return {"schema": 1, "name": name, "tasks": [*tasks, {**mapped, "upstream": ["clean"]}]}


def layered_definition(name: str, tasks: int = TASKS, layers: int = 100) -> dict[str, Any]:
    """Layers of equally many tasks, each a group; a task waits for its own and the next one of the layer before."""
    width = tasks // layers

    def named(layer: int, place: int) -> str:
        return f"stage_{layer}.part_{place % width}"

    return {
        "schema": 1,
        "name": name,
        "groups": [{"id": f"stage_{layer}"} for layer in range(layers)],
        "tasks": [
            {
                "id": named(layer, place),
                "group": f"stage_{layer}",
                "kind": "bash",
                "script": "true",
                "upstream": [named(layer - 1, place), named(layer - 1, place + 1)] if layer else [],
            }
            for layer in range(layers)
            for place in range(width)
        ],
    }


def pushed(actor: Actor, tenant: Tenant, definition: dict[str, Any]) -> Workflow:
    """The workflow with this definition as its current version."""
    return commands.push(actor=actor, tenant=tenant, definition=definition).workflow


def make_runs(workflow: Workflow, count: int = RUNS, every: str = "1 hour") -> list[int]:
    """So many ended runs, one behind the other; one in 17 failed. Returns their ids, oldest first."""
    assert workflow.current_id is not None
    names, mapped = _tasks(workflow)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workflows_run (workflow_id, version_id, tenant_id, state, trigger, logical_time, params, "
            "depth, edits, note, created_at, started_at, ended_at) "
            "SELECT %s, %s, %s, CASE WHEN n %% 17 = 0 THEN 'failed' ELSE 'succeeded' END, 'manual', at, '{}', 0, 0, "
            "'', at, at + interval '1 second', at + interval '20 seconds' * (1 + abs(sin(n / 40.0))) "
            "FROM (SELECT n, now() - (%s - n) * %s::interval AS at FROM generate_series(1, %s) AS n) AS made "
            "ORDER BY n RETURNING id",
            [workflow.pk, workflow.current_id, workflow.tenant_id, count, every, count],
        )
        ids = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            "INSERT INTO workflows_task (run_id, name, index, width, state, succeeded, failed, skipped, detail, "
            "queued_at, started_at, ended_at) "
            "SELECT run.id, task.name, -1, CASE WHEN task.mapped THEN 0 END, "
            "CASE WHEN run.state = 'succeeded' OR task.place < 4 THEN 'succeeded' "
            "WHEN task.place = 4 THEN 'failed' ELSE 'upstream_failed' END, 0, 0, 0, '', "
            "run.started_at + (task.place - 1) * step, run.started_at + (task.place - 0.9) * step, "
            "run.started_at + task.place * step "
            "FROM workflows_run AS run, unnest(%s::text[], %s::bool[]) WITH ORDINALITY AS task(name, mapped, place), "
            "LATERAL (SELECT (run.ended_at - run.started_at) / %s AS step) AS part "
            "WHERE run.id = ANY(%s) ORDER BY run.id, task.place",
            [names, mapped, len(names), ids],
        )
        cursor.execute("ANALYZE workflows_run, workflows_task")
    return ids


def _tasks(workflow: Workflow) -> tuple[list[str], list[bool]]:
    assert workflow.current_id is not None
    plan = plan_of(workflow.current_id)
    return list(plan.graph.order), [plan.tasks[name].mapped for name in plan.graph.order]


def expand(run: Run, name: str, width: int = TASKS, *, ended: bool = False) -> None:
    """Give the mapped task of the run so many instances: most have ended, some run, some wait.

    `ended`: all have. Where loops run, thousands of active instances that have no job would keep them busy for ever.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workflows_task (run_id, name, index, state, succeeded, failed, skipped, detail, queued_at, "
            "started_at, ended_at) "
            "SELECT id, %s, n, state, 0, 0, 0, '', started_at, "
            "CASE WHEN state <> 'queued' THEN started_at + n * interval '3 milliseconds' END, "
            "CASE WHEN state IN ('succeeded', 'failed') THEN started_at + n * interval '3 milliseconds' "
            "+ interval '2 seconds' END "
            "FROM (SELECT id, started_at, n, CASE WHEN n %% 97 = 0 THEN 'failed' "
            "WHEN %s OR n < %s * 0.7 THEN 'succeeded' WHEN n < %s * 0.75 THEN 'running' ELSE 'queued' END AS state "
            "FROM workflows_run, generate_series(0, %s - 1) AS n WHERE id = %s) AS made ORDER BY n",
            [name, ended, width, width, width, run.pk],
        )
        cursor.execute(
            "UPDATE workflows_task SET width = %s, state = %s WHERE run_id = %s AND name = %s AND index = -1",
            [width, "failed" if ended else "running", run.pk, name],
        )
        cursor.execute("ANALYZE workflows_task")
