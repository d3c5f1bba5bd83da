"""Reads the event log forward and makes the messages that somebody wants, each exactly once.

The log is read by transactions (`apps.events.horizon`). The cursor is the transaction up to which everything was read.
Its `floor` is an id below all that may still come, so that the read is a range of the index by verb and costs what is
new.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from apps.events.horizon import MARGIN, Position, position
from apps.events.models import Event
from apps.workflows.models import Run, Task
from apps.workflows.plans import Plan, plan_of
from rmctl.spec import SpecError

from .models import Cursor, Delivery, Destination, Kind

# Events of one pass; the next follows at once when there are more.
READ_MAX = 1000
VERBS = {
    "run.failed": Kind.RUN_FAILED,
    "run.succeeded": Kind.RUN_SUCCEEDED,
    "run.deadline_missed": Kind.RUN_DEADLINE,
    "task.failed": Kind.TASK_FAILED,
    "job.requeued": Kind.TASK_RETRIED,
    "approval.opened": Kind.APPROVAL_OPENED,
    "budget.warned": Kind.BUDGET_WARNED,
}
# What a definition calls them, in a workflow and in a task.
OCCASIONS = {
    Kind.RUN_FAILED: "failure",
    Kind.RUN_SUCCEEDED: "success",
    Kind.RUN_DEADLINE: "deadline",
    Kind.TASK_FAILED: "failure",
    Kind.TASK_RETRIED: "retry",
    Kind.APPROVAL_OPENED: "approval",
}
# What a workflow's own rules mean: failure and success of its run, but retries and questions of any of its tasks.
OF_WORKFLOW = frozenset(OCCASIONS) - {Kind.TASK_FAILED}
INSTANCE = re.compile(r"\[\d+\]$")


@dataclass(slots=True)
class News:
    """An event that may be told, with what it is about."""

    event: Event
    kind: Kind
    facts: dict[str, Any]
    run: int | None = None
    task: str = ""
    workflow: int | None = None
    plan: Plan | None = None
    # Names of the destinations that the definition tells.
    named: set[str] = field(default_factory=set)


def begin() -> None:
    """Read from here on; in the transaction that makes or enables the first destination of all."""
    here = position()
    start = {
        "xid": here.horizon, "event_id": 0, "floor": here.last - MARGIN,
        "mark_xid": here.following, "mark_event_id": here.last,
    }  # fmt: skip
    Cursor.objects.update_or_create(pk=1, defaults=start)


@transaction.atomic
def read() -> bool:
    """Make the messages of what is new, in one transaction with the cursor's move; returns whether there is more."""
    tenants = set(Destination.objects.filter(enabled=True).values_list("tenant_id", flat=True))
    if not tenants:
        return False
    here = position()
    cursor = Cursor.objects.select_for_update().filter(pk=1).first()
    if cursor is None or here.horizon < cursor.xid:
        # A database that was restored elsewhere counts its transactions anew.
        begin()
        return False
    if here.last == cursor.mark_event_id and cursor.xid >= cursor.mark_xid:
        return False  # Nothing was written since, and nothing was on its way then.
    events = _events(cursor, here, tenants)
    tell(events)
    full = len(events) == READ_MAX
    cursor.xid, cursor.event_id = (events[-1].xid, events[-1].pk) if full else (here.horizon, 0)
    if cursor.xid >= cursor.mark_xid:
        cursor.floor = max(cursor.floor, cursor.mark_event_id - MARGIN)
        cursor.mark_xid, cursor.mark_event_id = here.following, here.last
    cursor.save()
    return full


def _events(cursor: Cursor, here: Position, tenants: Collection[int]) -> list[Event]:
    return list(
        Event.objects.raw(
            "SELECT * FROM events_event WHERE verb = ANY(%s) AND id > %s AND (xid, id) > (%s, %s) AND xid < %s "
            f"AND tenant_id = ANY(%s) ORDER BY xid, id LIMIT {READ_MAX}",
            [list(VERBS), cursor.floor, cursor.xid, cursor.event_id, here.horizon, list(tenants)],
        )
    )


def tell(events: Sequence[Event]) -> None:
    """Make a message of each event to each destination that wants it; one that is there already stays as it is."""
    news = _known(events)
    if not news:
        return
    tenants = {item.event.tenant_id for item in news}
    destinations = Destination.objects.filter(tenant__in=tenants, enabled=True).prefetch_related("subscriptions")
    by_tenant: dict[int, list[Destination]] = {}
    for destination in destinations:
        by_tenant.setdefault(destination.tenant_id, []).append(destination)
    made = [
        Delivery(
            tenant_id=destination.tenant_id,
            destination=destination,
            event_id=item.event.pk,
            kind=item.kind,
            subject_type=item.event.subject_type,
            subject_id=item.event.subject_id,
            facts=item.facts,
            reason=item.event.reason,
            at=item.event.at,
            due_at=item.event.at,
        )
        for item in news
        for destination in by_tenant.get(item.event.tenant_id or 0, ())
        if _wants(destination, item)
    ]
    Delivery.objects.bulk_create(made, ignore_conflicts=True)


def _wants(destination: Destination, item: News) -> bool:
    """Whether it hears of this: by the definition, or by a subscription that was there when it happened."""
    at = item.event.at
    if at < destination.listens_since:
        return False
    if destination.name in item.named:
        return True
    return any(
        item.kind in subscription.kinds
        and subscription.workflow_id in (None, item.workflow)
        and at >= subscription.created_at
        for subscription in destination.subscriptions.all()
    )


def _known(events: Iterable[Event]) -> list[News]:
    """What the events are about; those that tell nobody anything are left out."""
    found = [
        News(event, VERBS[event.verb], dict(event.facts), task=str(event.facts.get("task", "")))
        for event in events
        if event.verb != "job.requeued" or "retry" in event.facts
    ]
    jobs = {item.event.subject_id for item in found if item.kind == Kind.TASK_RETRIED}
    tasks = {task.job_id: task for task in Task.objects.filter(job__in=jobs)} if jobs else {}
    for item in found:
        if item.event.subject_type == "run":
            item.facts["run"] = item.event.subject_id
        elif item.kind == Kind.TASK_RETRIED and (task := tasks.get(item.event.subject_id)) is not None:
            item.task = str(task)
            item.facts |= {"run": task.run_id, "task": item.task, "job": task.job_id}
        item.run = item.facts.get("run")
    runs = {run.pk: run for run in _runs({item.run for item in found if item.run is not None})}
    for item in found:
        run = runs.get(item.run or 0)
        if run is not None:
            item.workflow, item.plan = run.workflow_id, _plan(run.version_id)
            item.named = _named(item)
    return [item for item in found if (item.workflow or item.kind == Kind.BUDGET_WARNED) and not _of_instance(item)]


def _runs(keys: Collection[int]) -> Iterable[Run]:
    return Run.objects.filter(pk__in=keys).only("pk", "workflow_id", "version_id") if keys else ()


def _plan(version_id: int) -> Plan | None:
    try:
        return plan_of(version_id)
    except SpecError:
        return None  # This release no longer accepts it: only subscriptions count.


def _named(item: News) -> set[str]:
    if item.plan is None or not item.plan.notify:
        return set()
    occasion = OCCASIONS[item.kind]
    task = INSTANCE.sub("", item.task)
    rules: list[Mapping[str, Any]] = list(item.plan.notify.get(task, ())) if task else []
    if item.kind in OF_WORKFLOW and not (item.kind == Kind.RUN_DEADLINE and task):
        rules += item.plan.notify.get("", ())
    return {name for rule in rules if occasion in rule["on"] for name in rule["to"]}


def _of_instance(item: News) -> bool:
    """Failed instances of a mapped task are told of with the task, not each."""
    return item.kind == Kind.TASK_FAILED and INSTANCE.search(item.task) is not None
