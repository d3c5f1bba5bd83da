"""What a push tells its author without refusing anything: what may surprise, and what is named but not there yet."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef

from apps.core.errors import FieldError
from apps.tenants.models import Tenant
from rmctl.spec import WorkflowSpec
from rmctl.spec.datasets import uris, waited_by
from rmctl.spec.errors import did_you_mean
from rmctl.spec.review import unreachable
from rmctl.spec.schedule import clock_warnings

from .dataset_models import Dataset, DatasetEvent, DatasetUse, Webhook
from .models import Workflow


def notices(tenant: Tenant, spec: WorkflowSpec, now: datetime) -> list[FieldError]:
    """Changes of the clock that touch the schedule, tasks that can never run, workflows and datasets that nobody has
    made yet: those may follow, as the order of pushes is free."""
    definition = spec.definition
    clock = [
        FieldError(field="schedule", message=sentence, code="clock_change")
        for sentence in clock_warnings(spec.schedule, spec.timezone, now)
    ]
    never = [FieldError(**fault) for fault in unreachable(definition, {})]
    return [*clock, *never, *_unknown_workflows(tenant, definition), *_silent_datasets(tenant, definition)]


def _unknown_workflows(tenant: Tenant, definition: Mapping[str, Any]) -> list[FieldError]:
    named = {
        f"tasks[{position}].{task['kind']}.workflow": task[task["kind"]]["workflow"]
        for position, task in enumerate(definition["tasks"])
        if task["kind"] in ("wait_for_run", "trigger_run")
    }
    if not named:
        return []
    known = {definition["name"], *Workflow.objects.filter(tenant=tenant).values_list("name", flat=True)}
    return [
        FieldError(
            field=field,
            message=f"Tenant {tenant.slug} has no workflow {name} yet.{did_you_mean(name, known)}",
            code="unknown_workflow",
        )
        for field, name in named.items()
        if name not in known
    ]


def _silent_datasets(tenant: Tenant, definition: Mapping[str, Any]) -> list[FieldError]:
    """Datasets that it or a task waits for although no task makes them, no webhook does, and nobody ever has."""
    own = {uri for task in definition["tasks"] for uri in task.get("outlets", ())}
    named = dict.fromkeys(uris(definition.get("datasets")), "datasets")
    for position, task in enumerate(definition["tasks"]):
        for uri in waited_by(task):
            named.setdefault(uri, f"tasks[{position}].wait_for_dataset.datasets")
    waited = named.keys() - own
    if not waited:
        return []
    own_events = DatasetEvent.objects.filter(dataset=OuterRef("pk"))
    makers = DatasetUse.objects.filter(dataset=OuterRef("pk")).filter(waits=False).exclude(task="")
    hooks = Webhook.objects.filter(dataset=OuterRef("pk"))
    known = Dataset.objects.filter(Exists(own_events) | Exists(makers) | Exists(hooks), tenant=tenant, uri__in=waited)
    silent = waited - set(known.values_list("uri", flat=True))
    return [
        FieldError(
            field=named[uri],
            message=f"Nothing updates {uri} yet: no task has it among its outlets, no webhook tells of it.",
            code="silent_dataset",
        )
        for uri in sorted(silent)
    ]
