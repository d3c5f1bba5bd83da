"""Making runs and cancelling them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.bulk import insert
from apps.core.errors import Conflict, Invalid, NotFound
from apps.events.record import Fact, Move, move_many, record_all, transition
from apps.jobs.budgets import require_room
from apps.jobs.commands import cancel_many
from rmctl.spec import SpecError, check_params

from .. import claims, deadlines, policies, waits
from ..facts import run_fact
from ..models import Run, Task, Workflow, WorkflowVersion
from ..moved import backfill_moved
from ..plans import plan_of
from ..states import RUN_EDGES, RUN_TERMINAL, TASK_ACTIVE, TASK_EDGES, RunState, TaskState
from ..timetable import YEARS, Interval, timetable_of


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is made from; `params` are complete and checked, `interval` is its data interval."""

    logical_time: datetime
    trigger: str
    owner_id: int | None
    params: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    interval: Interval | None = None
    cause_id: int | None = None
    depth: int = 0
    backfill_id: int | None = None
    no_cache: bool = False


@transaction.atomic
def trigger(
    *,
    actor: Actor,
    workflow_id: int,
    params: Mapping[str, Any] | None = None,
    note: str = "",
    logical_time: datetime | None = None,
    version: int | None = None,
    no_cache: bool = False,
) -> Run:
    """Queue a run of the current version, or of the version with this number, at a logical time (now).

    With `no_cache` its tasks take no earlier results; what they make is kept for others.

    Where the workflow has a schedule, its data interval is the last that was complete at that time.

    Raises Invalid naming each parameter that the version does not accept; RateLimited and Conflict as a submission
    does, where a budget lets nothing more come: of the workflow, its tenant, its domain or the person.
    """
    workflow = policies.workflows.get(actor, "trigger", pk=workflow_id)
    chosen = chosen_version(workflow, version)
    values = checked_params(chosen, params or {})
    if len(note) > 500:
        raise Invalid.field("note", "at most 500 characters.", "too_long")
    now = timezone.now()
    if logical_time is not None and logical_time.year not in YEARS:
        raise Invalid.field("logical_time", f"from {YEARS[0]} to {YEARS[-1]}.", "out_of_range")
    require_room(workflow.tenant, actor.user_id, now, workflow.name)
    moment, table = logical_time or now, timetable_of(workflow)
    interval = table.complete(moment) if table is not None else None
    new = NewRun(moment, Run.Trigger.MANUAL, actor.user_id, values, note, interval, no_cache=no_cache)
    return create_runs(actor, workflow, chosen, [new], now)[0]


def chosen_version(workflow: Workflow, number: int | None) -> WorkflowVersion:
    """The version with the number, or the current one. Raises NotFound."""
    if number is None:
        found = workflow.current
    else:
        found = workflow.versions.filter(number=number).first()
    if found is None:
        raise NotFound(f"Workflow {workflow.name} has no version {number or ''}.".replace(" .", "."))
    return found


def checked_params(version: WorkflowVersion, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run with defaults filled in. Raises Invalid."""
    try:
        return check_params(version.definition["params"], given)
    except SpecError as error:
        raise Invalid(str(error), code="invalid_params", errors=error.errors) from None


def create_runs(
    actor: Actor, workflow: Workflow, version: WorkflowVersion, items: Sequence[NewRun], now: datetime
) -> list[Run]:
    """Insert queued runs pinned to the version, with all of their tasks."""
    runs = insert(
        Run(
            workflow=workflow,
            version=version,
            tenant_id=workflow.tenant_id,
            owner_id=item.owner_id,
            trigger=item.trigger,
            logical_time=item.logical_time,
            data_interval_start=item.interval.start if item.interval else None,
            data_interval_end=item.interval.end if item.interval else None,
            params=dict(item.params),
            note=item.note,
            cause_id=item.cause_id,
            depth=item.depth,
            note_by_id=item.owner_id if item.note else None,
            note_at=now if item.note else None,
            backfill_id=item.backfill_id,
            created_at=now,
        )
        for item in items
    )
    bypassing = [run for run, item in zip(runs, items, strict=True) if item.no_cache]
    for run in bypassing:
        run.no_cache = True
    if bypassing:
        Run.objects.filter(pk__in=[run.pk for run in bypassing]).update(no_cache=True)
    with connection.cursor() as cursor:
        # Tasks get their ids in topological order, so that lists by id read in the order of the work.
        cursor.execute(
            "INSERT INTO workflows_task (run_id, name, index, state, succeeded, failed, skipped, detail) "
            "SELECT run.id, task.name, -1, %s, 0, 0, 0, '' "
            "FROM unnest(%s::bigint[]) WITH ORDINALITY AS run(id, place), "
            "unnest(%s::text[]) WITH ORDINALITY AS task(name, place) ORDER BY run.place, task.place",
            [TaskState.WAITING, [run.pk for run in runs], list(plan_of(version.pk).graph.order)],
        )
    plan = plan_of(version.pk)
    if plan.deadlines:
        deadlines.scheduled(runs, plan)
    facts = {"workflow": workflow.name, "version": version.number}
    record_all(
        actor,
        (
            run_fact(
                "run.created",
                run,
                {
                    **facts,
                    "trigger": run.trigger,
                    "logical_time": run.logical_time.isoformat(),
                    **({"no_cache": True} if run.no_cache else {}),
                },
            )
            for run in runs
        ),
    )
    return runs


@transaction.atomic
def cancel_run(*, actor: Actor, run_id: int, reason: str = "") -> Run:
    """End a run now: tasks that have not ended are cancelled, their jobs are stopped by the scheduler's side.

    Raises Conflict for a run that has ended.
    """
    run = policies.runs.get(actor, "cancel", lock=True, pk=run_id)
    if run.state in RUN_TERMINAL:
        raise Conflict(f"Run {run.pk} has {run.state} already.", code="already_ended")
    stop_run(actor, run, RunState.CANCELLED, reason, timezone.now())
    return run


def stop_run(actor: Actor, run: Run, target: str, reason: str, now: datetime) -> None:
    """End a run whose row the caller has locked: with everything of it that has not ended, and the runs that it has
    started."""
    tasks = list(
        Task.objects.select_for_update()
        .filter(run=run, state__in=sorted(TASK_ACTIVE))
        .order_by("pk")
        .only("pk", "run_id", "name", "index", "state", "job_id")
    )
    moves = [Move(task.pk, task.state, TaskState.CANCELLED, (now,)) for task in tasks]
    move_many(Task, TASK_EDGES, moves, ("ended_at",))
    record_all(
        actor,
        (
            Fact(
                "task.cancelled",
                "task",
                task.pk,
                tenant_id=run.tenant_id,
                facts={"run": run.pk, "task": str(task)},
                reason=reason,
            )
            for task in tasks
        ),
    )
    keys = [task.pk for task in tasks]
    children = waits.children_of(keys)
    claims.release(run=run.pk)
    waits.drop(actor, keys)
    for child in children:
        cancel_run(actor=actor, run_id=child, reason=reason or f"Run {run.pk}, which started it, was cancelled.")
    jobs = [task.job_id for task in tasks if task.job_id is not None]
    if jobs:
        cancel_many(actor=actor, job_ids=jobs, reason=reason or f"Run {run.pk} was cancelled.")
    fact = run_fact("run.cancelled", run, {}, reason=reason)
    transition(actor, run, RUN_EDGES, target, fact, ended_at=now)
    waits.runs_ended([run], now)
    backfill_moved([run])


def start_children(run: Run, changes: waits.Changes, now: datetime) -> None:
    """Start the runs that tasks of a run start, in the transaction of its pass, and let their waits know them."""
    waiting = {id(row): wait for row, wait in changes.waits}
    for row, child in changes.children:
        table = timetable_of(child.workflow)
        new = NewRun(
            child.logical_time,
            Run.Trigger.WORKFLOW,
            run.owner_id,
            child.params,
            interval=table.complete(child.logical_time) if table is not None else None,
            cause_id=row.pk,
            depth=run.depth + 1,
            no_cache=child.no_cache or run.no_cache,
        )
        [made] = create_runs(SYSTEM, child.workflow, child.version, [new], now)
        waiting[id(row)].run = made.pk
