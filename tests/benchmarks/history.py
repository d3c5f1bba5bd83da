"""`./portal bench history`: whether a workflow stays as quick when the database is full of finished work.

Measures hops on chains, fills in older finished tasks with everything that belongs to them (job, grant, attempt,
placement, decision, three events each) as copies of a task that really ran, and measures the hops again.

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
# Chains before, and as many after.
REPEATS = 6
# What is filled in has keys from here on, the same in every table, so that copies refer to each other.
BASE = 1_000_000_000


def models() -> tuple[Any, ...]:
    """What belongs to a task."""
    from apps.events.models import Event
    from apps.jobs.models import Attempt, Grant, Job, Placement
    from apps.scheduling.models import Decision
    from apps.workflows.models import Run, Task

    return Run, Job, Task, Grant, Attempt, Placement, Decision, Event


def leave_room(count: int) -> None:
    """Let all that comes from now on have keys above those of `count` tasks: history is older than what runs."""
    from django.db import connection

    with connection.cursor() as cursor:
        for model in models():
            table = model._meta.db_table
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {BASE + EVENTS_OF_A_TASK * count})")


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

    Run, Job, Task, Grant, Attempt, Placement, Decision, Event = models()
    task = Task.objects.filter(run_id=run_id, job__isnull=False)[0]
    grant = Grant.objects.get(job=task.job_id)
    attempt = Attempt.objects.get(job=task.job_id)
    placement = Placement.objects.get(attempt=attempt)
    decision = Decision.objects.filter(job=task.job_id)[0]
    events = list(Event.objects.filter(subject_type="job", subject_id=task.job_id)[:EVENTS_OF_A_TASK])
    every = f"generate_series({BASE}, {BASE + count - 1}) AS g(n)"
    runs = count // TASKS_IN_A_RUN + 1
    run_of = f"{BASE} + (g.n - {BASE}) / {TASKS_IN_A_RUN}"
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # The copies are consistent: no need to look each up.
        for sql in (
            copy(Run, run_id, f"generate_series({BASE}, {BASE + runs - 1}) AS g(n)", {"id": "g.n"}),
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
        for model in models():
            cursor.execute(f"VACUUM ANALYZE {model._meta.db_table}")
        cursor.execute("SELECT pg_database_size(current_database())")
        size = cursor.fetchone()[0]
    return {
        "finished_tasks": count,
        "rows": runs + count * (6 + len(events)),
        "database_gib": round(size / 2**30, 2),
        "seconds": round(time.monotonic() - began, 1),
    }


def aged(portal: Portal, count: int) -> dict[str, Any]:
    """A chain right before and right after so many finished tasks come into the database."""
    leave_room(count)
    run = portal.run(portal.push(chain(2)))
    before = hops(portal, 30, REPEATS)
    filled = fill(run["id"], count)
    after = hops(portal, 30, REPEATS)
    ratios = {
        name: round(after[name]["p50"] / before[name]["p50"], 2) for name in ("hop_ms", "trigger_to_first_start_ms")
    }
    return {"before": before, "filled": filled, "after": after, "p50_ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    options = parser.parse_args()
    portal = Portal()
    portal.wait_for_node()
    result: dict[str, Any] = {"benchmark": "history", "machine": machine()}
    finish({**result, **aged(portal, options.tasks)})


if __name__ == "__main__":
    main()
