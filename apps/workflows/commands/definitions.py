"""Pushing definitions, and switching the timetable of a workflow off and on."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import FieldError, Invalid
from apps.core.locks import LockClass, lock_in_transaction
from apps.events.record import Fact, record
from apps.execution.models import Bundle
from apps.jobs.admission import impossible, too_urgent
from apps.jobs.commands.submission import equivalence
from apps.jobs.configuration import configuration
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Secret, Tenant
from apps.tenants.stored import missing
from rmctl.spec import SpecError, WorkflowSpec, parse_workflow

from .. import moved, path_history, policies
from ..limits import task_limits
from ..models import Workflow, WorkflowVersion
from ..notices import notices
from ..timetable import Interval, end_of, start_of, timetable_of
from .datasets import keep_uses
from .slots import slot_faults

# What of a definition decides when its scheduled runs come.
TIMETABLE_FIELDS = ("schedule", "timezone", "start_date", "end_date")
# Distinct requests that a push compares with quotas and nodes, the largest first; others wait with a reason.
CHECKED_REQUESTS = 50
# What apps above this one ask of a definition besides; appended in `AppConfig.ready()`.
FURTHER_CHECKS: list[Callable[[Tenant, WorkflowSpec], list[FieldError]]] = []


@dataclass(frozen=True, slots=True)
class PushResult:
    """The version that the definition is now; `created` is False when it was known already.

    `warnings` say what its author may not expect of it, and what has come to be wrong with a version that was known.
    """

    workflow: Workflow
    version: WorkflowVersion
    created: bool
    warnings: list[FieldError] = field(default_factory=list)


@transaction.atomic
def push(
    *, actor: Actor, tenant: Tenant, definition: dict[str, Any], bundle_follows: bool = False
) -> PushResult:
    """Make a definition the current version of the workflow that it names.

    The same definition again is the same version, also after others were pushed in between (it becomes the
    current one). Pushes of one name come one after the other. Raises Invalid naming every wrong field, an
    absent bundle or secret, a schedule that never comes, and each task that no quota or no node could ever hold.
    With `bundle_follows`, for what is rolled back after it, the bundle may be absent.
    """
    tenant_policies.tenants.require(actor, "push", tenant)
    try:
        spec = parse_workflow(definition)
    except SpecError as error:
        raise Invalid(str(error), code="invalid_spec", errors=error.errors) from None
    now = timezone.now()
    warnings = notices(tenant, spec, now)
    lock_in_transaction(LockClass.WORKFLOW, zlib.crc32(f"{tenant.pk}/{spec.name}".encode()))
    workflow = Workflow.objects.select_for_update().filter(tenant=tenant, name=spec.name).first()
    version = WorkflowVersion.objects.filter(workflow=workflow, digest=spec.digest()).first() if workflow else None
    errors = _faults(tenant, spec, bundle_follows)
    if version is not None and workflow is not None and workflow.current_id == version.pk:
        return PushResult(workflow, version, created=False, warnings=[*errors, *warnings])
    if errors:
        raise Invalid(f"{errors[0]['field']}: {errors[0]['message']}", code=errors[0]["code"], errors=errors)
    if workflow is None:
        workflow = Workflow.objects.create(tenant=tenant, name=spec.name)
        record(actor, _fact("workflow.created", workflow))
    created = version is None
    if version is None:
        number = (workflow.versions.aggregate(last=Max("number"))["last"] or 0) + 1
        version = WorkflowVersion.objects.create(
            workflow=workflow,
            number=number,
            digest=spec.digest(),
            definition=spec.definition,
            owner_id=actor.user_id,
        )
    _make_current(workflow, version, spec, now)
    keep_uses(workflow, version.definition)
    path_history.watch(version)
    if task_limits(version.definition):
        # They may be wider than those that tasks wait for.
        moved.tell_tenants([tenant.pk])
    verb = "workflow.pushed" if created else "workflow.version_selected"
    record(actor, _fact(verb, workflow, version=version.number, digest=version.digest))
    return PushResult(workflow, version, created=created, warnings=warnings)


def _make_current(workflow: Workflow, version: WorkflowVersion, spec: WorkflowSpec, now: datetime) -> None:
    """Copy what lists and the timetable read; the timetable begins anew only when it has changed."""
    before = workflow.current.definition if workflow.current is not None else {}
    definition = version.definition
    workflow.current = version
    workflow.description = spec.description
    workflow.schedule = spec.schedule or ""
    workflow.timezone = spec.timezone
    workflow.catchup = spec.catchup
    if any(before.get(name) != definition.get(name) for name in TIMETABLE_FIELDS):
        plan_timetable(workflow, now)
        if workflow.schedule and workflow.next_run_at is None:
            message = f"{workflow.schedule} never comes: the end date {spec.end_date} is before its next time."
            raise Invalid.field("end_date", message, "never_comes")
    workflow.save()


def plan_timetable(workflow: Workflow, now: datetime) -> None:
    """Set when the workflow's next scheduled run comes, from its current version; does not save.

    Nothing is next when every interval that would still get a run begins after the end date.
    """
    workflow.next_run_at = workflow.next_logical_time = None
    if not workflow.schedule or workflow.current is None:
        return
    start, last = start_of(workflow.current.definition["start_date"], workflow.timezone), end_of(workflow)
    table = timetable_of(workflow)
    if table is not None:
        interval = table.first(now, start, catchup=workflow.catchup)
    else:
        # A continuous one begins at once; its intervals follow its runs.
        begin = max(start or now, now)
        interval = Interval(begin, begin)
    if last is None or interval.start <= last:
        workflow.next_logical_time, workflow.next_run_at = interval.start, interval.end


def _faults(tenant: Tenant, spec: WorkflowSpec, bundle_follows: bool) -> list[FieldError]:
    """Why it could not run although the definition itself is right."""
    errors: list[FieldError] = []
    given = spec.bundle is None or bundle_follows
    if not given and not Bundle.objects.filter(tenant=tenant, sha256=spec.bundle).exists():
        message = f"Tenant {tenant.slug} has no bundle {str(spec.bundle)[:12]}…: upload it first (rmctl push does)."
        errors.append(FieldError(field="bundle", message=message, code="unknown_bundle"))
    properties = spec.params.get("properties", {})
    needed = [name for name in spec.params.get("required", []) if "default" not in properties[name]]
    if (spec.schedule is not None or spec.datasets is not None) and needed:
        message = f"A scheduled run gives no parameters: add a default to {', '.join(needed)}."
        errors.append(FieldError(field="params.required", message=message, code="no_default"))
    for name, text in (("start_date", spec.start_date), ("end_date", spec.end_date)):
        try:
            start_of(text, spec.timezone)
        except ValueError as error:
            errors.append(FieldError(field=name, message=f"{error}.", code="out_of_range"))
    errors += _unknown_secrets(tenant, spec)
    errors += slot_faults(tenant, spec) + _too_urgent_tasks(tenant, spec) + _impossible_tasks(tenant, spec)
    for check in FURTHER_CHECKS:
        errors += check(tenant, spec)
    return errors


def _unknown_secrets(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    named = {
        task.id: set((spec.compiled[task.id].base["groups"][0].get("secrets") or {}).values()) for task in spec.tasks
    }
    wanted = set().union(*named.values())
    if not wanted:
        return []
    known = set(Secret.objects.filter(tenant=tenant, name__in=wanted).values_list("name", flat=True))
    known |= {name for name in wanted if ":" in name} - missing(tenant.pk, wanted)
    return [
        FieldError(
            field=f"tasks[{position}].secrets",
            message=f"Tenant {tenant.slug} has no {_listed(named[task.id] - known)}.",
            code="unknown_secret",
        )
        for position, task in enumerate(spec.tasks)
        if named[task.id] - known
    ]


def _listed(references: set[str]) -> str:
    """`secret a, variable b` of references to secrets, variables and connections."""
    return ", ".join(name.replace(":", " ") if ":" in name else f"secret {name}" for name in sorted(references))


def _too_urgent_tasks(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    """Tasks that name more priority than jobs of the tenant may."""
    named = [spec.compiled[task.id].base["priority"] for task in spec.tasks]
    configured = configuration(timezone.now())
    refused = {priority: too_urgent(configured, tenant, priority) for priority in set(named)}
    return [
        FieldError(**{**fault, "field": f"tasks[{position}].priority"})
        for position, priority in enumerate(named)
        for fault in refused[priority]
    ]


def _impossible_tasks(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    """Tasks whose job could never start; equal requests with equal time limits are looked at once."""
    alike: dict[tuple[str, float], list[int]] = {}
    for position, task in enumerate(spec.tasks):
        if task.kind != "empty":
            base = spec.compiled[task.id].base
            alike.setdefault((equivalence(base), base["time_limit"]), []).append(position)
    bases = [(spec.compiled[spec.tasks[positions[0]].id].base, positions) for positions in alike.values()]
    errors: list[FieldError] = []
    for base, positions in sorted(bases, key=lambda item: _size(item[0]), reverse=True)[:CHECKED_REQUESTS]:
        for found in impossible(tenant, base):
            field = found["field"].removeprefix("groups[0].")
            errors += [
                FieldError(
                    field=f"tasks[{position}].{field}",
                    message=f"Task {spec.tasks[position].id}: {found['message']}",
                    code=found["code"],
                )
                for position in positions
            ]
    return errors


def _size(base: dict[str, Any]) -> tuple[int, int, int]:
    group = base["groups"][0]
    resources = group["resources"]
    cards = (resources.get("gpu") or {}).get("count", 0)
    return (cards, resources["cpu_millicores"] * group["count"], resources["memory_bytes"] * group["count"])


@transaction.atomic
def pause(*, actor: Actor, workflow_id: int, reason: str = "") -> Workflow:
    """Stop the timetable: no new scheduled run, and those in the queue wait. What runs goes on, and people
    may still trigger. Pausing twice changes nothing."""
    return _set_paused(actor, workflow_id, "pause", paused=True, reason=reason)


@transaction.atomic
def resume(*, actor: Actor, workflow_id: int, reason: str = "") -> Workflow:
    """Let the timetable run again from where it stood: with catchup every interval that was missed, else the
    latest. Resuming twice changes nothing."""
    return _set_paused(actor, workflow_id, "resume", paused=False, reason=reason)


def _set_paused(actor: Actor, workflow_id: int, action: str, *, paused: bool, reason: str) -> Workflow:
    workflow = policies.workflows.get(actor, action, lock=True, pk=workflow_id)
    if workflow.paused != paused:
        workflow.paused = paused
        if not paused and workflow.next_run_at is None:
            plan_timetable(workflow, timezone.now())
        workflow.save(update_fields=["paused", "next_run_at", "next_logical_time"])
        record(actor, _fact("workflow.paused" if paused else "workflow.resumed", workflow, reason=reason))
    return workflow


def _fact(verb: str, workflow: Workflow, *, reason: str = "", **facts: Any) -> Fact:
    return Fact(
        verb,
        "workflow",
        workflow.pk,
        tenant_id=workflow.tenant_id,
        facts={"name": workflow.name, **facts},
        reason=reason,
    )
