"""Datasets: keeping who uses them, recording that they were updated, and the runs that follow.

Lock order: workflow → its pending triggers. Recording an event locks nothing that is there already, but waits of tasks
for its dataset.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import DomainError, Invalid
from apps.events.record import Fact, record, record_all
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from rmctl.spec import BadValue
from rmctl.spec.datasets import check_uri, holds, uris, waited_by

from .. import dataset_waits, policies
from ..dataset_models import Dataset, DatasetEvent, DatasetTrigger, DatasetUse
from ..models import Run, Workflow
from ..moved import tell_timetable
from ..results import size
from ..timetable import Interval
from .runs import NewRun, checked_params, create_runs

logger = logging.getLogger(__name__)

WORKFLOWS_MAX = 500
EXTRA_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Update:
    """A dataset was updated; by a task of a run, or by `source`."""

    uri: str
    run: Run | None = None
    task: str = ""
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def keep_uses(workflow: Workflow, definition: Mapping[str, Any]) -> None:
    """Store which datasets the current version makes and waits for; what it no longer waits for triggers nothing."""
    wanted = {(uri, "", False) for uri in uris(definition.get("datasets"))}
    wanted |= {(uri, task["id"], False) for task in definition["tasks"] for uri in task.get("outlets", ())}
    wanted |= {(uri, task["id"], True) for task in definition["tasks"] for uri in waited_by(task)}
    if not wanted and not workflow.dataset_uses.exists():
        return
    known = datasets_named(workflow.tenant_id, {uri for uri, _, _ in wanted})
    workflow.dataset_uses.all().delete()
    DatasetUse.objects.bulk_create(
        DatasetUse(dataset=known[uri], workflow=workflow, task=task, waits=waits)
        for uri, task, waits in sorted(wanted)
    )
    pending = workflow.dataset_triggers.filter(run=None)
    pending.exclude(event__dataset__uri__in=[uri for uri, task, _ in wanted if not task]).delete()


def datasets_named(tenant_id: int, names: Iterable[str]) -> dict[str, Dataset]:
    """The tenant's datasets with these URIs; those that are new are made."""
    wanted = sorted(set(names))
    rows = Dataset.objects.filter(tenant_id=tenant_id, uri__in=wanted)
    known = {row.uri: row for row in rows}
    if len(known) < len(wanted):
        new = [Dataset(tenant_id=tenant_id, uri=uri) for uri in wanted if uri not in known]
        Dataset.objects.bulk_create(new, ignore_conflicts=True)
        known = {row.uri: row for row in rows.all()}
    return known


def record_updates(actor: Actor, tenant_id: int, updates: Sequence[Update], now: datetime) -> list[DatasetEvent]:
    """Record updates of datasets of one tenant in the present transaction, with what they trigger."""
    known = datasets_named(tenant_id, {update.uri for update in updates})
    events = DatasetEvent.objects.bulk_create(
        DatasetEvent(
            dataset=known[update.uri], at=now, run=update.run, task=update.task, source=update.source,
            extra=dict(update.extra),
        )
        for update in updates
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workflows_datasettrigger (workflow_id, event_id) "
            "SELECT u.workflow_id, e.id FROM workflows_datasetevent e "
            "JOIN workflows_datasetuse u ON u.dataset_id = e.dataset_id AND u.task = '' WHERE e.id = ANY(%s)",
            [[event.pk for event in events]],
        )
        triggers = cursor.rowcount
    record_all(
        actor,
        (
            Fact(
                "dataset.updated", "dataset", event.dataset_id, tenant_id=tenant_id,
                facts={"uri": event.dataset.uri, "event": event.pk}
                | ({"run": event.run_id, "task": event.task} if event.run_id else {"source": event.source}),
            )
            for event in events
        ),
    )  # fmt: skip
    if triggers:
        tell_timetable()
    awaited = sorted(dataset.pk for dataset in known.values() if dataset.awaited)
    if awaited:
        dataset_waits.bring_due(awaited, now)
    return events


@transaction.atomic
def update_dataset(*, actor: Actor, tenant: Tenant, uri: str, extra: Mapping[str, Any] | None = None) -> DatasetEvent:
    """Say that a dataset was updated by something that is no task here. Raises Invalid for what is no URI."""
    tenant_policies.tenants.require(actor, "push", tenant)
    try:
        check_uri(uri)
    except BadValue as error:
        raise Invalid.field("uri", error.message, error.code) from None
    update = Update(uri, source=actor.label, extra=checked_extra(extra or {}))
    return record_updates(actor, tenant.pk, [update], timezone.now())[0]


def checked_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with an event. Raises Invalid when it is too large."""
    if size(extra) > EXTRA_BYTES:
        raise Invalid.field("extra", f"at most {EXTRA_BYTES // 1024} KiB as JSON.", "too_large")
    return dict(extra)


def create_dataset_runs(now: datetime) -> bool:
    """Make the runs of workflows whose datasets were updated; returns whether more wait at once."""
    waiting = DatasetTrigger.objects.filter(run=None, workflow__paused=False).order_by("workflow")
    ids = list(waiting.values_list("workflow", flat=True).distinct()[:WORKFLOWS_MAX])
    for workflow_id in ids:
        try:
            _create_of(workflow_id, now)
        except (DomainError, ValueError, IntegrityError):
            # One workflow that cannot be triggered must not keep the others waiting.
            logger.exception("The run that datasets trigger could not be made for workflow %s", workflow_id)
    return len(ids) == WORKFLOWS_MAX


@transaction.atomic
def _create_of(workflow_id: int, now: datetime) -> None:
    """One run for all the events that are there, if they meet the workflow's condition; they are used up by it."""
    workflow = (
        Workflow.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
        .select_related("current")
        .filter(pk=workflow_id, paused=False)
        .first()
    )
    version = workflow.current if workflow is not None else None
    if workflow is None or version is None:
        return
    pending = list(
        workflow.dataset_triggers.filter(run=None)
        .select_for_update(of=("self",))
        .values_list("pk", "event__dataset__uri", "event__at")
    )
    condition = version.definition.get("datasets")
    if not condition or not holds(condition, {uri for _, uri, _ in pending}):
        return
    times = [at for _, _, at in pending]
    params, interval = checked_params(version, {}), Interval(min(times), max(times))
    new = NewRun(now, Run.Trigger.DATASET, version.owner_id, params, interval=interval)
    [run] = create_runs(SYSTEM, workflow, version, [new], now)
    DatasetTrigger.objects.filter(pk__in=[pk for pk, _, _ in pending]).update(run=run)


@transaction.atomic
def delete_dataset(*, actor: Actor, dataset_id: int) -> None:
    """Forget a dataset with its events. Raises Invalid while a workflow makes it or waits for it."""
    dataset = policies.datasets.get(actor, "delete", lock=True, pk=dataset_id)
    if dataset.uses.exists() or dataset_waits.awaited_by_tasks(dataset.pk):
        raise Invalid(
            "Workflows still make this dataset or wait for it: push them without it first, and let their runs end.",
            code="in_use",
        )
    record(
        actor, Fact("dataset.deleted", "dataset", dataset.pk, tenant_id=dataset.tenant_id, facts={"uri": dataset.uri})
    )
    dataset.delete()
