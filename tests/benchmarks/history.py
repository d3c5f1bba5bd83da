"""`./portal bench history`: whether a workflow stays as quick when the database is full of finished work.

Measures hops on a chain, fills in finished tasks with everything that belongs to them (job, grant, attempt, placement,
decision, three events each) as copies of a task that really ran, and measures the hops again.

    ./portal bench history [--tasks 1000000]
"""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from .common import Portal, finish, machine
from .dag import chain, hops

TASKS_IN_A_RUN = 1000
EVENTS_OF_A_TASK = 3


def copy(model: Any, template: int, rows: str, overrides: Mapping[str, str]) -> str:
    """SQL that inserts a copy of one row for each of `rows` (a FROM clause); `overrides` are expressions by column."""
    fields = [field for field in model._meta.concrete_fields if field.column in overrides or not field.primary_key]
    columns = [field.column for field in fields]
    values = [overrides.get(column, f't."{column}"') for column in columns]
    table = model._meta.db_table
    names = ", ".join(f'"{column}"' for column in columns)
    return f'INSERT INTO {table} ({names}) SELECT {", ".join(values)} FROM {table} t, {rows} WHERE t.id = {template}'


def fill(run_id: int, count: int) -> dict[str, Any]:
    """Insert `count` finished tasks with all that belongs to them; returns how many rows, and in how many seconds."""
    from django.db import connection

    from apps.events.models import Event
    from apps.jobs.models import Attempt, Grant, Job, Placement
    from apps.scheduling.models import Decision
    from apps.workflows.models import Run, Task

    task = Task.objects.filter(run_id=run_id, job__isnull=False)[0]
    grant = Grant.objects.get(job=task.job_id)
    attempt = Attempt.objects.get(job=task.job_id)
    placement = Placement.objects.get(attempt=attempt)
    decision = Decision.objects.filter(job=task.job_id)[0]
    events = list(Event.objects.filter(subject_type="job", subject_id=task.job_id)[:EVENTS_OF_A_TASK])
    models = (Run, Job, Task, Grant, Attempt, Placement, Decision, Event)
    # Far above the keys in use, the same offset in every table, so that copies refer to each other.
    base = 1_000_000_000
    every = f"generate_series({base}, {base + count - 1}) AS g(n)"
    runs = count // TASKS_IN_A_RUN + 1
    run_of = f"{base} + (g.n - {base}) / {TASKS_IN_A_RUN}"
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # The copies are consistent: no need to look each up.
        for sql in (
            copy(Run, run_id, f"generate_series({base}, {base + runs - 1}) AS g(n)", {"id": "g.n"}),
            copy(Job, task.job_id, every, {"id": "g.n", "origin": f"'run:' || ({run_of})"}),
            copy(Task, task.pk, every, {"id": "g.n", "run_id": run_of, "job_id": "g.n", "name": "'t' || g.n"}),
            copy(Grant, grant.pk, every, {"id": "g.n", "job_id": "g.n"}),
            copy(Attempt, attempt.pk, every, {"id": "g.n", "job_id": "g.n", "grant_id": "g.n"}),
            copy(Placement, placement.pk, every, {"id": "g.n", "attempt_id": "g.n"}),
            copy(Decision, decision.pk, every, {"id": "g.n", "job_id": "g.n"}),
            *(
                copy(Event, event.pk, every, {"id": f"g.n + {place * count}", "subject_id": "g.n"})
                for place, event in enumerate(events)
            ),
        ):
            cursor.execute(sql)
        cursor.execute("SET session_replication_role = DEFAULT")
        for model in models:
            cursor.execute(f"VACUUM ANALYZE {model._meta.db_table}")
        cursor.execute("SELECT pg_database_size(current_database())")
        size = cursor.fetchone()[0]
    return {
        "finished_tasks": count,
        "rows": runs + count * (6 + len(events)),
        "database_gib": round(size / 2**30, 2),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    options = parser.parse_args()
    portal = Portal()
    portal.wait_for_node()
    run = portal.run(portal.push(chain(2)))
    result: dict[str, Any] = {"benchmark": "history", "machine": machine()}
    result["empty"] = hops(portal, 30, 3)
    result["history"] = fill(run["id"], options.tasks)
    result["full"] = hops(portal, 30, 3)
    result["hop_p50_ratio"] = round(result["full"]["hop_ms"]["p50"] / result["empty"]["hop_ms"]["p50"], 2)
    finish(result)


if __name__ == "__main__":
    main()
