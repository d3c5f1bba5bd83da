"""Submitting jobs: from people and programs with full checks, and in bulk from the product's own loops."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.bulk import insert
from apps.core.errors import Invalid
from apps.events.record import Fact, record_all
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Secret, Tenant
from engine.reasons import Reason
from rmctl.spec import SpecError, parse_job

from ..admission import default_pool, refuse_impossible
from ..budgets import require_room
from ..labels import rows_of
from ..models import Job
from ..requests import bonded, minimums_of


@dataclass(frozen=True, slots=True)
class Submission:
    """One job to be made from a spec that is normalised and checked already."""

    spec: dict[str, Any]
    origin: str
    name: str
    workflow: str = ""


def equivalence(spec: dict[str, Any]) -> str:
    """A digest of everything in a normalised spec that quota and placement look at."""
    looked_at = {
        "groups": [(group["count"], group["resources"], bool(group.get("image"))) for group in spec["groups"]],
        "intent": spec["intent"],
    }
    if least := minimums_of(spec):
        looked_at["minimums"] = least
    if spec["intent"].get("require", {}).get("image_present") or "warmth" in (spec["intent"].get("goals") or {}):
        looked_at["images"] = [group.get("image") for group in spec["groups"]]
    if labels := spec.get("labels"):
        looked_at["labels"] = labels
    return hashlib.blake2b(json.dumps(looked_at, sort_keys=True).encode(), digest_size=16).hexdigest()


@transaction.atomic
def submit(*, actor: Actor, tenant: Tenant, data: dict[str, Any]) -> Job:
    """Submit one job as given by a person or a program.

    Raises Invalid naming each wrong field, also for what could never start: an unknown pool or secret, a
    request larger than any node, or above what the quota tree can ever give. RateLimited above a budget of
    submissions a minute, Conflict where no more jobs may wait.
    """
    tenant_policies.tenants.require(actor, "submit", tenant)
    body = {key: value for key, value in data.items() if key != "tenant"}
    try:
        spec = parse_job(body).normalised()
    except SpecError as error:
        raise Invalid(str(error), code="invalid_spec", errors=error.errors) from None
    require_possible(tenant, spec)
    require_room(tenant, actor.user_id, timezone.now())
    item = Submission(spec=spec, origin="", name=spec["name"])
    return submit_many(actor=actor, tenant=tenant, owner_id=actor.user_id, items=[item])[0]


def require_possible(tenant: Tenant, spec: dict[str, Any]) -> None:
    """Name the pool of a normalised spec that names none. Raises Invalid for what could never start."""
    _refuse_unknown_secrets(tenant, spec)
    spec["intent"]["pool"] = spec["intent"].get("pool") or default_pool()
    refuse_impossible(tenant, spec)


def _refuse_unknown_secrets(tenant: Tenant, spec: dict[str, Any]) -> None:
    named = [set((group.get("secrets") or {}).values()) for group in spec["groups"]]
    if not any(named):
        return
    known = set(Secret.objects.filter(tenant=tenant, name__in=set().union(*named)).values_list("name", flat=True))
    for index, names in enumerate(named):
        if names - known:
            missing = ", ".join(sorted(names - known))
            raise Invalid.field(
                f"groups[{index}].secrets", f"tenant {tenant.slug} has no secret {missing}.", "unknown_secret"
            )


def submit_many(
    *, actor: Actor, tenant: Tenant, owner_id: int | None, items: Sequence[Submission], on_behalf_of: str = ""
) -> list[Job]:
    """Make many jobs in the caller's transaction from checked, normalised specs."""
    now = timezone.now()
    pool: str | None = None
    rows = []
    for item in items:
        intent = item.spec["intent"]
        if not intent.get("pool"):
            pool = pool or default_pool()
            intent["pool"] = pool
        rows.append(
            Job(
                tenant=tenant,
                owner_id=owner_id,
                name=item.name,
                origin=item.origin,
                workflow=item.workflow,
                spec=item.spec,
                equivalence=equivalence(item.spec),
                bonded=bonded(item.spec),
                pool=intent["pool"],
                priority=item.spec["priority"],
                reason=Reason.SUBMITTED,
                detail="Submitted; the scheduler looks at it in its next cycle.",
                submitted_at=now,
            )
        )
    jobs = insert(rows)
    insert(rows_of(job for job in jobs if job.bonded))  # Who has labels is.
    record_all(
        actor,
        (
            Fact(
                "job.submitted",
                "job",
                job.pk,
                tenant_id=tenant.pk,
                facts={"name": job.name, **({"origin": job.origin} if job.origin else {})},
                topics=("queue",),
            )
            for job in jobs
        ),
        on_behalf_of=on_behalf_of,
    )
    return jobs
