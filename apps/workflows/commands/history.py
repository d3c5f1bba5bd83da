"""Rows of tasks when people turn them back: what they were is kept as a try."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from apps.core.actors import Actor
from apps.core.bulk import update_rows
from apps.core.errors import StaleState
from apps.events.record import transition
from apps.jobs.commands import cancel_many
from apps.jobs.models import Job
from apps.jobs.states import JOB_ACTIVE

from .. import claims, waits
from ..apply import settle
from ..clearing import Row
from ..facts import backfill_fact, run_fact
from ..models import Backfill, Run, Task
from ..states import (
    BACKFILL_EDGES,
    RUN_REOPENS,
    RUN_TERMINAL,
    TASK_ACTIVE,
    TASK_CLEARS,
    TASK_IN_FLIGHT,
    BackfillState,
    RunState,
    TaskState,
)
from .runs import cancel_run

# In flight: it did not come to an end of its own. A group's counters say nothing once its instances are tries.
_ARCHIVE = """
INSERT INTO workflows_tasktry (run_id, name, index, number, version_id, state, width, job_id, detail,
                               label, queued_at, started_at, ended_at, closed_at, closed_by)
SELECT t.run_id, t.name, t.index,
       1 + coalesce((SELECT max(y.number) FROM workflows_tasktry y
                     WHERE y.run_id = t.run_id AND y.name = t.name AND y.index = t.index), 0),
       r.version_id, CASE WHEN t.state IN ('deferred', 'queued', 'running') THEN 'cancelled' ELSE t.state END,
       t.width, t.job_id, t.detail, t.label, t.queued_at, t.started_at, coalesce(t.ended_at, %s), %s, %s
FROM workflows_task t JOIN workflows_run r ON r.id = t.run_id
WHERE t.id = ANY(%s) AND t.state <> 'waiting' AND NOT t.restart
"""
_RESET = (
    "width", "job", "restart", "succeeded", "failed", "skipped", "detail", "result", "queued_at",
    "started_at", "ended_at",
)  # fmt: skip


def archive(actor: Actor, rows: Collection[Row], now: datetime) -> None:
    """Keep how the rows are as the newest of their tries; those that wait have nothing to be kept."""
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_ARCHIVE, [now, now, actor.label[:200], [row.pk for row in rows]])


def stop_jobs(actor: Actor, rows: Collection[Row], reason: str) -> set[int]:
    """Cancel the jobs of the rows, the runs that they wait for, and their questions; returns the jobs whose processes
    have to stop first."""
    active = [row.pk for row in rows if row.state in TASK_ACTIVE]
    children = waits.children_of(active)
    waits.drop(actor, active)
    for child in children:
        cancel_run(actor=actor, run_id=child, reason=reason)
    jobs = [row.stopping for row in rows if row.stopping is not None]
    if not jobs:
        return set()
    cancel_many(actor=actor, job_ids=jobs, reason=reason)
    return set(Job.objects.filter(pk__in=jobs, state__in=sorted(JOB_ACTIVE)).values_list("pk", flat=True))


@dataclass(frozen=True, slots=True)
class Turn:
    """The state that a row gets; with `restart` it waits anew once the `job` or those of its instances have stopped."""

    row: Row
    state: str
    job: int | None = None
    restart: bool = False


def rewrite(
    turns: Iterable[Turn],
    machine: Mapping[tuple[str, str], str],
    *,
    detail: str = "",
    queued_at: datetime | None = None,
    ended_at: datetime | None = None,
) -> None:
    """Give rows their new states and nothing of what they had; all of them or StaleState.

    What stands for instances keeps their number, unless it waits.
    """
    values = []
    for turn in turns:
        row, to = turn.row, str(turn.state)
        if row.state != to and (row.state, to) not in machine:
            raise StaleState(f"Task {row} is {row.state} and cannot become {to}.")
        width = row.width if to != TaskState.WAITING else None
        values.append(
            (row.pk, to, width, turn.job, turn.restart, 0, 0, 0, detail, None, queued_at, None, ended_at, row.state)
        )
    if len(update_rows(Task, ("state", *_RESET), values, guard="state")) != len(values):
        raise StaleState("Tasks moved while their run was locked; nothing was changed.")


def ended(groups: Iterable[Row]) -> list[Row]:
    """Those of the mapped tasks that have ended."""
    return [row for row in groups if row.state not in TASK_IN_FLIGHT]


def reopen_groups(groups: Iterable[Row], now: datetime) -> None:
    """Let mapped tasks that have ended, and are archived, end anew, when all of their instances have. The time that
    they take begins now: instances that stay began before."""
    rewrite([Turn(row, TaskState.QUEUED) for row in ended(groups)], TASK_CLEARS, queued_at=now)


def go_on(actor: Actor, run: Run, now: datetime, reason: str) -> None:
    """Let the run follow what was changed: at once where it runs, when it is its turn where it has ended.

    The caller holds the run's row. A backfill that has ended goes on with its run.
    """
    run.edits += 1
    run.save(update_fields=["edits"])
    claims.reset(run.pk)
    if run.state in RUN_TERMINAL:
        fact = run_fact("run.reopened", run, {"from": run.state}, reason=reason)
        transition(actor, run, RUN_REOPENS, RunState.QUEUED, fact, started_at=None, ended_at=None)
        _reopen_backfill(actor, run, reason)
    elif run.state == RunState.RUNNING:
        settle(run.pk, now)
        run.refresh_from_db()


def _reopen_backfill(actor: Actor, run: Run, reason: str) -> None:
    if run.backfill_id is None:
        return
    ended = (BackfillState.SUCCEEDED, BackfillState.FAILED)
    backfill = Backfill.objects.select_for_update().filter(pk=run.backfill_id, state__in=ended).first()
    if backfill is not None:
        fact = backfill_fact("backfill.reopened", backfill, run=run.pk, reason=reason)
        transition(actor, backfill, BACKFILL_EDGES, BackfillState.RUNNING, fact, ended_at=None)
