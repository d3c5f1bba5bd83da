"""Slot pools: making, changing and deleting them, and what a push may want of them.

Lock order: slot pool only. Places that a change frees are given out by the advance loop.
"""

from typing import Any

from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Conflict, FieldError, Invalid
from apps.events.record import Fact, record
from apps.tenants.models import Tenant
from rmctl.spec import WorkflowSpec
from rmctl.spec.errors import did_you_mean
from rmctl.spec.limits import MAX_SLOTS
from rmctl.spec.values import IDENTIFIER

from .. import moved, policies
from ..models import SlotClaim, SlotPool, Workflow

DESCRIPTION_MAX = 500
NAMED = 5


@transaction.atomic
def create_slot_pool(*, actor: Actor, tenant: Tenant, name: str, size: int, description: str = "") -> SlotPool:
    """Make a slot pool. Raises Invalid naming the field, also when the tenant has one of this name."""
    policies.slot_pools.require(actor, "create", tenant)
    if not IDENTIFIER.fullmatch(name):
        message = "start with a letter or _, then letters, digits, _ . or -, at most 200 in all."
        raise Invalid.field("name", message, "bad_id")
    _check(size, description)
    pool, made = SlotPool.objects.get_or_create(
        tenant=tenant, name=name, defaults={"size": size, "description": description}
    )
    if not made:
        raise Invalid.field("name", f"tenant {tenant.slug} has a slot pool {name} already.", "taken")
    record(actor, _fact("slot_pool.created", pool, size=size))
    return pool


@transaction.atomic
def change_slot_pool(
    *, actor: Actor, pool_id: int, size: int | None = None, description: str | None = None
) -> SlotPool:
    """Give a slot pool another size or description.

    Tasks that hold slots keep them, whatever the size is now; of size 0 no further task starts. Tasks that wait for
    more than there are say so. The same again changes nothing.
    """
    pool = policies.slot_pools.get(actor, "update", lock=True, pk=pool_id)
    before = {"size": pool.size, "description": pool.description}
    pool.size = pool.size if size is None else size
    pool.description = pool.description if description is None else description
    _check(pool.size, pool.description)
    changes = {name: getattr(pool, name) for name, value in before.items() if getattr(pool, name) != value}
    if changes:
        pool.save(update_fields=list(changes))
        record(actor, _fact("slot_pool.changed", pool, **changes))
        moved.tell_tenants([pool.tenant_id])
    return pool


@transaction.atomic
def delete_slot_pool(*, actor: Actor, pool_id: int) -> None:
    """Delete a slot pool. Raises Conflict naming who still holds or waits for its slots, or which workflows name it."""
    pool = policies.slot_pools.get(actor, "delete", lock=True, pk=pool_id)
    claim = SlotClaim.objects.filter(pool=pool).select_related("task").first()
    if claim is not None:
        verb = "holds" if claim.held else "waits for"
        raise Conflict(f"Task {claim.task} of run {claim.run_id} {verb} slots of {pool}.", code="in_use")
    taking = [{"slots": {"name": pool.name}}]
    users = Workflow.objects.filter(tenant=pool.tenant, current__definition__tasks__contains=taking)
    names = list(users.values_list("name", flat=True)[: NAMED + 1])
    if names:
        more = " and others" if len(names) > NAMED else ""
        raise Conflict(f"Tasks of {', '.join(names[:NAMED])}{more} take slots of {pool}.", code="in_use")
    record(actor, _fact("slot_pool.deleted", pool))
    pool.delete()


def _check(size: int, description: str) -> None:
    if not 0 <= size <= MAX_SLOTS:
        message = f"from 0 to {MAX_SLOTS}; with 0 no task that takes its slots starts."
        raise Invalid.field("size", message, "out_of_range")
    if len(description) > DESCRIPTION_MAX:
        raise Invalid.field("description", f"at most {DESCRIPTION_MAX} characters.", "too_long")


def _fact(verb: str, pool: SlotPool, **facts: Any) -> Fact:
    return Fact(verb, "slot_pool", pool.pk, tenant_id=pool.tenant_id, facts={"name": pool.name, **facts})


def slot_faults(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    """Tasks that take slots of a pool that is not there, or more than it has; one of size 0 stands still on purpose."""
    wanted = {task.slots.name for task in spec.tasks if task.slots is not None}
    if not wanted:
        return []
    sizes = dict(SlotPool.objects.filter(tenant=tenant).values_list("name", "size"))
    errors = []
    for position, task in enumerate(spec.tasks):
        if task.slots is None:
            continue
        name, count = task.slots.name, task.slots.count
        if name not in sizes:
            hint = did_you_mean(name, sorted(sizes))
            message = f"Tenant {tenant.slug} has no slot pool {name}.{hint} Its admins make one: rmctl slots create."
            errors.append(FieldError(field=f"tasks[{position}].slots.name", message=message, code="unknown_slot_pool"))
        elif count > sizes[name] > 0:
            message = f"Task {task.id} wants {count} slots of {name}, which has {sizes[name]}."
            errors.append(FieldError(field=f"tasks[{position}].slots.count", message=message, code="too_many_slots"))
    return errors
