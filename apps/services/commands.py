"""Deploying, scaling, rolling back, stopping and removing services. The loop `services` does what follows from them.

Lock order: service, then whatever the loop locks behind it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Conflict, FieldError, Invalid, NotFound
from apps.events.record import record, transition
from apps.jobs.budgets import require_room
from apps.jobs.commands import require_possible
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from engine.services import Condition
from rmctl.spec import SpecError
from rmctl.spec.service import MAX_REPLICAS, ServiceSpec, parse_service
from rmctl.spec.values import canonical_json

from . import policies
from .facts import rollout_fact, service_fact
from .models import Revision, Rollout, Service
from .states import ROLLOUT_EDGES, SERVICE_EDGES, RolloutState, ServiceState
from .subscribers import rollout_ended


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service with its rollout as a deployment left it; `changed` says whether it changed anything."""

    service: Service
    rollout: Rollout
    changed: bool


@transaction.atomic
def deploy(*, actor: Actor, tenant: Tenant, data: Mapping[str, Any], reason: str = "") -> Deployed:
    """Make a service, or roll out what is new of it. The same again changes nothing, unless its rollout has failed or
    it was stopped: then it is rolled out anew.

    Raises Invalid naming each wrong field, also for what could never start. The replicas are jobs of the actor.
    """
    spec = checked_spec(tenant=tenant, data=data)
    service = Service.objects.select_for_update(of=("self",)).filter(tenant=tenant, name=spec.name).first()
    if service is None:
        service = _create(actor, tenant, spec)
    else:
        policies.services.require(actor, "deploy", service)
    changes = _settings(service, spec)
    revision = _revision(actor, service, spec.normalised_job())
    rollout = service.rollout
    known = rollout is not None and rollout.revision_id == revision.pk and rollout.state != RolloutState.FAILED
    if rollout is not None and known and service.state == ServiceState.ACTIVE:
        if changes:
            _touch(service, *changes)
            record(actor, service_fact("service.changed", service, reason=reason, **changes))
        return Deployed(service, rollout, bool(changes))
    require_room(tenant, actor.user_id, timezone.now())
    service.owner_id = actor.user_id
    return Deployed(service, _roll(actor, service, revision, reason, "owner", *changes), True)


def checked_spec(*, tenant: Tenant, data: Mapping[str, Any]) -> ServiceSpec:
    """The service that this describes. Raises Invalid naming each wrong field, also for what could never start."""
    try:
        spec = parse_service({key: value for key, value in data.items() if key != "tenant"})
    except SpecError as error:
        raise Invalid(str(error), code="invalid_spec", errors=error.errors) from None
    try:
        require_possible(tenant, spec.normalised_job())
    except Invalid as error:
        errors = [FieldError(**{**one, "field": f"job.{one['field']}"}) for one in error.errors]
        raise Invalid(error.detail, code=error.code, errors=errors) from None
    return spec


def _create(actor: Actor, tenant: Tenant, spec: ServiceSpec) -> Service:
    tenant_policies.tenants.require(actor, "submit", tenant)
    service, made = Service.objects.get_or_create(
        tenant=tenant,
        name=spec.name,
        defaults={
            "owner_id": actor.user_id,
            "replicas": 1 if spec.replicas is None else spec.replicas,
            "policy": spec.policy(),
            "condition": Condition.STARTING,
            "created_at": timezone.now(),
        },
    )
    if not made:
        raise Conflict(f"Somebody else has just made service {spec.name}; deploy again.", code="made_meanwhile")
    record(actor, service_fact("service.created", service, replicas=service.replicas))
    return service


def _settings(service: Service, spec: ServiceSpec) -> dict[str, Any]:
    """Take replicas and policy from the spec; returns what changed."""
    wanted = service.replicas if spec.replicas is None else spec.replicas
    found = {"replicas": wanted, "policy": spec.policy()}
    changes = {name: value for name, value in found.items() if getattr(service, name) != value}
    for name, value in changes.items():
        setattr(service, name, value)
    return changes


def _touch(service: Service, *columns: str) -> None:
    """Store the columns and let the loop look at the service."""
    service.due_at = timezone.now()
    service.save(update_fields=["due_at", *columns])


def _revision(actor: Actor, service: Service, job: dict[str, Any]) -> Revision:
    """The revision with this content, made if there is none."""
    digest = hashlib.sha256(canonical_json(job)).hexdigest()
    revision = service.revisions.filter(digest=digest).first()
    if revision is None:
        latest = service.revisions.order_by("-number").values_list("number", flat=True).first()
        revision = service.revisions.create(
            number=(latest or 0) + 1, spec=job, digest=digest, created_at=timezone.now(), created_by=actor.label
        )
    return revision


def _roll(actor: Actor, service: Service, revision: Revision, reason: str, *columns: str) -> Rollout:
    """Begin a rollout of the revision; the one before that still goes on is superseded."""
    now = timezone.now()
    if service.state == ServiceState.STOPPED:
        transition(actor, service, SERVICE_EDGES, ServiceState.ACTIVE, service_fact("", service))
    _end_rolling(actor, service, RolloutState.SUPERSEDED, now)
    # Early ends before somebody asked for it again do not count.
    Revision.objects.filter(pk=revision.pk).update(failures=0, retry_at=None)
    service.rollout = Rollout.objects.create(
        service=service, revision=revision, created_at=now, progressed_at=now, created_by=actor.label
    )
    service.condition, service.detail = Condition.STARTING, f"Revision {revision.number} is to be rolled out."
    _touch(service, "rollout", "condition", "detail", *columns)
    facts = {"revision": revision.number, "replicas": service.replicas, "rollout": service.rollout.pk}
    record(actor, service_fact("service.deployed", service, reason=reason, **facts))
    return service.rollout


def _end_rolling(actor: Actor, service: Service, state: RolloutState, now: datetime) -> None:
    rollout = service.rollout
    if rollout is not None and rollout.state == RolloutState.ROLLING:
        transition(actor, rollout, ROLLOUT_EDGES, state, rollout_fact(service, rollout), ended_at=now)
        rollout_ended(rollout.pk)


@transaction.atomic
def scale(*, actor: Actor, service_id: int, replicas: int, reason: str = "") -> Service:
    """Let so many replicas run. The same number again changes nothing; Conflict for a service that is stopped."""
    service = policies.services.get(actor, "scale", lock=True, pk=service_id)
    if not 0 <= replicas <= MAX_REPLICAS:
        raise Invalid.field("replicas", f"from 0 to {MAX_REPLICAS}.", "out_of_range")
    if service.state == ServiceState.STOPPED:
        raise Conflict(f"Service {service.name} is stopped: deploy it or roll it back to a revision first.")
    if service.replicas != replicas:
        before, service.replicas = service.replicas, replicas
        _touch(service, "replicas")
        record(actor, service_fact("service.scaled", service, reason=reason, before=before, replicas=replicas))
    return service


@transaction.atomic
def rollback(*, actor: Actor, service_id: int, revision: int, reason: str = "") -> Service:
    """Roll out an earlier revision, or a failed or stopped one again. The revision that runs changes nothing."""
    service = policies.services.get(actor, "rollback", lock=True, pk=service_id)
    chosen = service.revisions.filter(number=revision).first()
    if chosen is None:
        raise NotFound(f"Service {service.name} has no revision {revision}.")
    require_possible(service.tenant, chosen.spec)
    rollout = service.rollout
    current = rollout is not None and rollout.revision_id == chosen.pk and rollout.state != RolloutState.FAILED
    if not current or service.state == ServiceState.STOPPED:
        _roll(actor, service, chosen, reason)
    return service


@transaction.atomic
def stop(*, actor: Actor, service_id: int, reason: str = "") -> Service:
    """End all replicas; the service stays, with its revisions. Stopping twice changes nothing."""
    service = policies.services.get(actor, "stop", lock=True, pk=service_id)
    if service.state == ServiceState.ACTIVE:
        transition(actor, service, SERVICE_EDGES, ServiceState.STOPPED, service_fact("", service, reason=reason))
        _end_rolling(actor, service, RolloutState.STOPPED, timezone.now())
        _touch(service)
    return service


@transaction.atomic
def remove(*, actor: Actor, service_id: int) -> None:
    """Forget a service that is stopped, with its revisions; the jobs of its replicas stay. Raises Conflict while it is
    not stopped or replicas have not ended."""
    service = policies.services.get(actor, "remove", lock=True, pk=service_id)
    if service.state != ServiceState.STOPPED:
        raise Conflict(f"Service {service.name} is not stopped: stop it first.")
    left = service.members.filter(ended_at__isnull=True).count()
    if left:
        raise Conflict(f"{left} replicas of service {service.name} have not ended yet: try again in a moment.")
    record(actor, service_fact("service.removed", service))
    service.delete()
