"""Turning tasks of a run back: clearing, so that they run again, and marking, so that they count as ended.

Both hold the run's row, as the advance loop does, and say by an event what was done. Lock order: run → tasks → jobs.
"""

from collections.abc import Collection, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.bulk import insert
from apps.core.errors import Conflict, Invalid
from apps.events.record import Fact, record, record_all
from engine.clearing import followed
from engine.dag import TaskState as EngineState

from .. import caching, policies
from ..clearing import Choice, ClearPlan, Row, named_rows, plan_clear, rows_of
from ..facts import run_fact
from ..models import Run, Task
from ..plans import plan_of
from ..states import MARKS, TASK_CLEARS, TASK_IN_FLIGHT, TASK_MARKS, TASK_TERMINAL, TaskState
from ..unmade import write_out
from .datasets import Update, record_updates
from .history import Turn, archive, ended, go_on, reopen_groups, rewrite, stop_jobs
from .runs import checked_params

STOPPING = "Cleared: what runs of it is being stopped, then it runs again."
# Names that the event of a clear lists.
NAMED = 50


@transaction.atomic
def clear(*, actor: Actor, run_id: int, choice: Choice, reason: str = "") -> ClearPlan:
    """Let tasks of a run run again, as `plan_clear` says, which is what comes back.

    Jobs of tasks in flight are cancelled; such a task starts again when its processes have stopped, and what the old
    job still reports does not count. A run that has ended is queued again. Earlier tries are kept (`Run.tries`).
    Raises Conflict when there is nothing to clear, Invalid for unknown tasks and for parameters of the run that the
    newest version does not accept.
    """
    run = policies.runs.get(actor, "clear", lock=True, pk=run_id)
    plan = plan_clear(run, choice)
    if plan.settled and write_out(plan.settled):
        plan = plan_clear(run, choice)
    now = timezone.now()
    why = reason or f"Cleared by {actor.label}."
    stopping = stop_jobs(actor, plan.rows, why)
    # Before the version changes: a try says on which it was.
    archive(actor, [*plan.rows, *ended(plan.groups)], now)
    if plan.version.pk != run.version_id:
        _change_version(actor, plan, reason)
    _turn_back(plan, stopping)
    reopen_groups(plan.groups, now)
    if not choice.from_cache:
        caching.drop(run.pk, {row.name for row in plan.rows} - plan.instances.keys(), plan.instances)
    _record(actor, plan, why)
    go_on(actor, run, now, why)
    return plan


def _turn_back(plan: ClearPlan, stopping: Collection[int]) -> None:
    """Let rows wait now or, in flight, once their jobs have stopped. Instances of tasks that are cleared as a whole and
    tasks that the version lacks go."""
    turns: list[Turn] = []
    deleted: list[int] = []
    held = {row.name for row in plan.rows if row.index >= 0 and row.stopping in stopping}
    for row in plan.rows:
        still = TaskState.RUNNING if row.state == TaskState.RUNNING else TaskState.QUEUED
        if row.name in plan.removed:
            deleted.append(row.pk)
        elif row.stopping in stopping:
            turns.append(Turn(row, still, row.stopping, restart=True))
        elif row.index >= 0 and row.name not in plan.instances:
            deleted.append(row.pk)
        elif row.expanded and row.name in held:
            turns.append(Turn(row, still, restart=True))
        else:
            turns.append(Turn(row, TaskState.WAITING))
    Task.objects.filter(pk__in=deleted).delete()
    rewrite((turn for turn in turns if turn.restart), TASK_CLEARS, detail=STOPPING)
    rewrite((turn for turn in turns if not turn.restart), TASK_CLEARS)


def _change_version(actor: Actor, plan: ClearPlan, reason: str) -> None:
    """Pin the run to the other version, with a row for each task that this adds."""
    run = plan.run
    run.params = checked_params(plan.version, run.params)
    facts: dict[str, Any] = {"from": run.version.number, "to": plan.version.number}
    for name in ("added", "removed", "changed"):
        facts[name] = list(getattr(plan, name))[:NAMED]
    run.version = plan.version
    run.save(update_fields=["version", "params"])
    insert(Task(run=run, name=name) for name in plan.added)
    record(actor, run_fact("run.version_changed", run, facts, reason=reason))


def _record(actor: Actor, plan: ClearPlan, reason: str) -> None:
    run = plan.run
    names = [*plan.whole, *(f"{name}[{index}]" for name, some in plan.instances.items() for index in some)]
    facts = {"tasks": names[:NAMED], "count": len(plan.units), "version": plan.version.number}
    whole = [row for row in plan.rows if row.index < 0 or row.name in plan.instances]
    record_all(
        actor,
        [run_fact("run.cleared", run, facts, reason=reason), *(_task_fact("task.cleared", run, row) for row in whole)],
    )


def _task_fact(verb: str, run: Run, row: Row, reason: str = "", **facts: str) -> Fact:
    return Fact(
        verb,
        "task",
        row.pk,
        tenant_id=run.tenant_id,
        facts={"run": run.pk, "task": str(row), "from": row.state, **({"job": row.job} if row.job else {}), **facts},
        reason=reason,
        topics=(f"run:{run.pk}",),
    )


@transaction.atomic
def mark(*, actor: Actor, run_id: int, tasks: Sequence[str], state: str, reason: str = "") -> Run:
    """Count tasks (`train`) or instances (`train[3]`) of a run as `succeeded`, `failed` or `skipped` from now on.

    What runs of them is stopped. What waits for them follows, and so does what had been skipped or had failed only
    because of them. A run that has ended is queued again and ends anew. Raises Invalid for an unknown task, Conflict
    for one that has succeeded (it can be cleared) or is in this state already.
    """
    run = policies.runs.get(actor, "mark", lock=True, pk=run_id)
    if state not in MARKS:
        raise Invalid.field("state", f"one of {', '.join(MARKS)}.", "invalid_choice")
    if not tasks:
        raise Invalid.field("tasks", "name at least one task.", "required")
    now = timezone.now()
    rows = rows_of(run)
    named = named_rows(run, rows, tasks)
    own = {row.name: row for row in rows if row.index < 0}
    settled = {row.name for row in named if row.index >= 0 and own[row.name].state in TASK_TERMINAL}
    if settled and write_out(own[name].pk for name in settled):
        rows = rows_of(run)
        named = named_rows(run, rows, tasks)
    for row in named:
        _require_markable(row, own[row.name], state)
    marked = [*named, *_instances(rows, named, state)]
    why = f"Marked {state} by {actor.label}{f': {reason}' if reason else '.'}"
    stop_jobs(actor, marked, why)
    states = {name: EngineState(row.state) for name, row in own.items()}
    again = [own[name] for name in followed(plan_of(run.version_id).graph, {row.name for row in named}, states)]
    whole = {row.name for row in named if row.index < 0}
    groups = [own[name] for name in sorted({row.name for row in named} - whole)]
    archive(actor, [*marked, *again, *ended(groups)], now)
    rewrite([Turn(row, state) for row in marked], TASK_MARKS, detail=why, ended_at=now)
    rewrite([Turn(row, TaskState.WAITING) for row in again], TASK_CLEARS)
    reopen_groups(groups, now)
    _record_marks(actor, run, marked, again, state, why)
    if state == TaskState.SUCCEEDED:
        outlets = plan_of(run.version_id).outlets
        updates = [Update(uri, run=run, task=name) for name in sorted(whole) for uri in outlets.get(name, ())]
        if updates:
            record_updates(actor, run.tenant_id, updates, now)
    go_on(actor, run, now, why)
    return run


def _require_markable(row: Row, group: Row, state: str) -> None:
    if row.index >= 0 and group.restart:
        raise Conflict(f"{group} is cleared as a whole, so {row} goes: mark {group} instead.", code="being_cleared")
    if row.state == state:
        raise Conflict(f"Task {row} is {state} already.", code="already_so")
    if row.state == TaskState.SUCCEEDED:
        raise Conflict(
            f"Task {row} has succeeded, and a success is never marked otherwise: clear it to let it run again.",
            code="has_succeeded",
        )


def _instances(rows: Sequence[Row], named: Sequence[Row], state: str) -> list[Row]:
    """The instances that go with mapped tasks marked as a whole; to failed only those that have not ended."""
    groups = {row.name for row in named if row.expanded}
    chosen = {row.pk for row in named}
    return [
        row
        for row in rows
        if row.name in groups
        and row.index >= 0
        and row.pk
        and row.pk not in chosen
        and row.state not in (TaskState.SUCCEEDED, state)
        and (state != TaskState.FAILED or row.state in (*TASK_IN_FLIGHT, TaskState.WAITING))
    ]


def _record_marks(
    actor: Actor, run: Run, marked: Sequence[Row], again: Sequence[Row], state: str, reason: str
) -> None:
    record_all(
        actor,
        [
            *(_task_fact("task.marked", run, row, reason, to=state) for row in marked),
            *(_task_fact("task.cleared", run, row, reason) for row in again),
        ],
    )
