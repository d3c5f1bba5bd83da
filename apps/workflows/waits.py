"""Waits of tasks: reading them, writing them, and bringing them due.

A task that waits is a row and no more. Whatever ends the wait sets its `due_at` and tells the advance loop, which ends
the task. The loop `waits` finds what became due by the clock, from a partial index, so that its cost follows what is
due and not what waits. As with every hint, nothing depends on being told once: at each tick it tells again of what is
still due.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from django.db import connection, transaction

from apps.core import loops
from apps.core.actors import SYSTEM, Actor
from apps.core.bulk import insert
from apps.events.record import Fact, record_all, transition

from . import dataset_waits, moved
from .models import Approval, Run, Wait, Workflow, WorkflowVersion
from .states import APPROVAL_EDGES

DUE_MAX = 2000
# Runs that start each other may be so deep.
DEPTH_MAX = 10


@dataclass(slots=True)
class WaitRow:
    """A row of `Wait` with what it waits for: the run's id and state, the approval's answer."""

    kind: str
    since: datetime
    due_at: datetime | None
    deadline: datetime | None = None
    looks: int = 0
    workflow: int | None = None
    logical_time: datetime | None = None
    run: int | None = None
    found_run: int | None = None
    found_state: str = ""
    approval: int | None = None
    answer: str = ""
    option: str = ""
    values: Any = None
    answered_by: str | None = None
    datasets: list[int] | None = None
    updated_since: datetime | None = None
    reference: int | None = None


@dataclass(slots=True)
class Question:
    """An approval to be asked."""

    fields: dict[str, Any]


@dataclass(slots=True)
class Child:
    """A run to be started."""

    workflow: Workflow
    version: WorkflowVersion
    params: dict[str, Any]
    logical_time: datetime
    no_cache: bool = False


@dataclass(slots=True)
class Changes:
    """What a pass changes in the waits; tasks are by their rows, which may get their keys only when written."""

    waits: list[tuple[Any, WaitRow]] = field(default_factory=list)
    gone: list[Any] = field(default_factory=list)
    questions: list[tuple[Any, Question]] = field(default_factory=list)
    children: list[tuple[Any, Child]] = field(default_factory=list)
    expired: list[tuple[int, str]] = field(default_factory=list)


COLUMNS = (
    "w.kind, w.since, w.due_at, w.deadline, w.looks, w.workflow_id, w.logical_time, w.run_id, "
    "coalesce(own.id, other.id), coalesce(own.state, other.state, ''), a.id, a.state, a.option, a.values, u.username, "
    "w.datasets, w.updated_since, w.reference"
)
JOINED = (
    "LEFT JOIN workflows_run own ON own.id = w.run_id "
    "LEFT JOIN LATERAL (SELECT r.id, r.state FROM workflows_run r WHERE r.workflow_id = w.workflow_id "
    " AND r.logical_time = w.logical_time ORDER BY r.id DESC LIMIT 1) other ON true "
    "LEFT JOIN LATERAL (SELECT * FROM workflows_approval q WHERE q.task_id = w.task_id "
    " ORDER BY q.id DESC LIMIT 1) a ON w.kind = 'approval' "
    "LEFT JOIN auth_user u ON u.id = a.answered_by_id"
)


def read(columns: Sequence[Any]) -> WaitRow:
    """A row of the COLUMNS."""
    row = list(columns)
    for place in (11, 12):
        row[place] = row[place] or ""
    row[13] = json.loads(row[13]) if row[13] else {}
    return WaitRow(*row)


def load(tasks: Iterable[int]) -> dict[int, WaitRow]:
    """The waits of these tasks."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT w.task_id, {COLUMNS} FROM workflows_wait w {JOINED} WHERE w.task_id = ANY(%s::bigint[])",
            [list(tasks)],
        )
        return {row[0]: read(row[1:]) for row in cursor.fetchall()}


def write(changes: Changes, now: datetime) -> None:
    """Store the changes; the runs and tasks are locked. Lock order: tasks → waits → approvals."""
    if changes.waits:
        _upsert(changes.waits)
    if changes.gone:
        Wait.objects.filter(pk__in=[row.pk for row in changes.gone]).delete()
    if changes.questions:
        close_questions(SYSTEM, [row.pk for row, _ in changes.questions])
        rows = [row for row, _ in changes.questions]
        asked = insert(Approval(task_id=row.pk, asked_at=now, **question.fields) for row, question in changes.questions)
        record_all(SYSTEM, [_opened(row, approval) for row, approval in zip(rows, asked, strict=True)])
    for approval, option in changes.expired:
        expire(approval, option, now)
    watched = {wait.workflow for _, wait in changes.waits if wait.workflow is not None}
    if watched:
        Workflow.objects.filter(pk__in=watched, awaited=False).update(awaited=True)
    followed = {dataset for _, wait in changes.waits for dataset in wait.datasets or ()}
    if followed:
        dataset_waits.subscribe(followed)
    arm([(row.pk, wait.due_at) for row, wait in changes.waits if wait.due_at is not None], now)


def expire(approval_id: int, option: str, now: datetime) -> None:
    """Close a question whose time is over; `option` is its default. Raises StaleState when it was just answered."""
    approval = Approval.objects.select_related("task").get(pk=approval_id)
    fact = approval_fact("approval.expired", approval, option=option)
    transition(SYSTEM, approval, APPROVAL_EDGES, Approval.State.EXPIRED, fact, option=option, answered_at=now)


def close_questions(actor: Actor, tasks: Collection[int]) -> None:
    """Close what these tasks still ask."""
    for approval in Approval.objects.select_related("task").filter(task__in=tasks, state=Approval.State.OPEN):
        fact = approval_fact("approval.closed", approval)
        transition(actor, approval, APPROVAL_EDGES, Approval.State.CLOSED, fact)


def approval_fact(verb: str, approval: Approval, **facts: Any) -> Fact:
    """A fact about a question; the page of its run shows it."""
    run = approval.task.run_id
    return Fact(
        verb,
        "approval",
        approval.pk,
        tenant_id=approval.tenant_id,
        facts={"run": run, "task": str(approval.task), "subject": approval.subject, **facts},
        topics=(f"run:{run}",),
    )


def _opened(row: Any, approval: Approval) -> Fact:
    facts = {"run": row.run, "task": str(row), "subject": approval.subject}
    topics = (f"run:{row.run}",)
    return Fact("approval.opened", "approval", approval.pk, approval.tenant_id, facts=facts, topics=topics)


def _upsert(waits: Sequence[tuple[Any, WaitRow]]) -> None:
    Wait.objects.bulk_create(
        [
            Wait(
                task_id=row.pk,
                kind=wait.kind,
                since=wait.since,
                due_at=wait.due_at,
                deadline=wait.deadline,
                looks=wait.looks,
                workflow_id=wait.workflow,
                logical_time=wait.logical_time,
                run_id=wait.run,
                datasets=wait.datasets,
                updated_since=wait.updated_since,
                reference=wait.reference,
            )
            for row, wait in waits
        ],
        update_conflicts=True,
        unique_fields=["task"],
        update_fields=[
            "kind", "since", "due_at", "deadline", "looks", "workflow", "logical_time", "run", "datasets",
            "updated_since", "reference",
        ],
    )


def arm(due: Sequence[tuple[int, datetime]], now: datetime) -> None:
    """Once the present transaction has committed: tell of what is due, and ask for a pass when the next of it is."""
    at_once = [task for task, at in due if at <= now]
    if at_once:
        moved.tell_waits(at_once)
    later = min((at for _, at in due if at > now), default=None)
    if later is not None and later - now <= loops.AHEAD:
        transaction.on_commit(partial(loops.wake_at, "waits", later))


def note_due(now: datetime) -> int:
    """Note what became due by the clock, at most DUE_MAX; returns how many there are."""
    due = list(Wait.objects.filter(due_at__lte=now).order_by("due_at").values_list("task_id", flat=True)[:DUE_MAX])
    if due:
        moved.note_waits(due)
    return len(due)


def next_due(now: datetime) -> datetime | None:
    """When the next wait is due, if that is soon."""
    soon = Wait.objects.filter(due_at__gt=now, due_at__lte=now + loops.AHEAD)
    return soon.order_by("due_at").values_list("due_at", flat=True).first()


def runs_ended(runs: Collection[Run], now: datetime) -> None:
    """Bring due what waits for these runs, in the transaction that ends them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workflows_wait w SET due_at = %s FROM workflows_run r WHERE r.id = ANY(%s) AND (w.run_id = r.id "
            "OR (w.workflow_id = r.workflow_id AND w.logical_time = r.logical_time)) RETURNING w.task_id",
            [now, [run.pk for run in runs]],
        )
        tasks = [row[0] for row in cursor.fetchall()]
    if tasks:
        moved.tell_waits(tasks)


def drop(actor: Actor, tasks: Collection[int]) -> None:
    """Forget what these tasks wait for, as they were cancelled or are run again; open questions are closed."""
    Wait.objects.filter(pk__in=tasks).delete()
    close_questions(actor, tasks)


def children_of(tasks: Collection[int]) -> list[int]:
    """Active runs that these tasks have started and wait for."""
    active = Wait.objects.filter(pk__in=tasks, kind=Wait.Kind.TRIGGER, run__state__in=["queued", "running"])
    return sorted(active.values_list("run_id", flat=True))


def workflow_named(tenant_id: int, name: str) -> Workflow | None:
    """A workflow of the tenant with its current version."""
    return Workflow.objects.select_related("current").filter(tenant=tenant_id, name=name).first()


def chain_of(run: Run) -> list[str]:
    """The workflows of the runs that started each other down to this one, the first one first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE up AS (SELECT workflow_id, cause_id, depth FROM workflows_run WHERE id = %s "
            "UNION ALL SELECT r.workflow_id, r.cause_id, r.depth FROM up JOIN workflows_task t ON t.id = up.cause_id "
            "JOIN workflows_run r ON r.id = t.run_id WHERE r.depth < up.depth) "
            "SELECT w.name FROM up JOIN workflows_workflow w ON w.id = up.workflow_id ORDER BY up.depth",
            [run.pk],
        )
        return [row[0] for row in cursor.fetchall()]


def merge_results(found: dict[str, Any], own: Mapping[tuple[str, int], Any], wanted: Iterable[str]) -> None:
    """Put the results of tasks that ended in this pass, which are not written yet, among those that were read."""
    names = set(wanted)
    for (name, index), value in own.items():
        if name not in names:
            continue
        if index < 0:
            found[name] = value
        elif isinstance(found.get(name), list) and index < len(found[name]):
            found[name][index] = value

