"""The only writers of the quota tree. Each holds the tree's lock, so no charge happens meanwhile."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from apps.core.actors import Actor
from apps.core.errors import Conflict, FieldError, Invalid
from apps.core.serializers import suggestion
from apps.events.record import Fact, record
from apps.fleet.models import Flavor
from apps.tenants.commands import checked_slug
from apps.tenants.models import Tenant
from engine.queues import Fungibility, Policy, Preference, Strategy

from . import policies
from .ledger import lock_trees
from .models import QuotaLimit, QuotaNode, QuotaUsage, Resource
from .queries import limits_stamp

MAX_AMOUNT = 2**53
MAX_DEPTH = 16
MAX_WEIGHT = 1_000_000.0
PRIORITIES = range(-1000, 1001)
_PRIORITY_RANGE = f"from {PRIORITIES[0]} to {PRIORITIES[-1]}"


def _changed(actor: Actor, verb: str, node: QuotaNode, **facts: Any) -> None:
    facts = {"name": node.name, **facts}
    record(actor, Fact(verb, "quota", node.pk, tenant_id=node.tenant_id, facts=facts, topics=("quota",)))


def _weight(value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= MAX_WEIGHT:
        raise Invalid.field("weight", f"a number from 0 to {MAX_WEIGHT:.0f}.")
    return value


def _checked_parent(actor: Actor, parent: QuotaNode | None, node: QuotaNode | None = None) -> QuotaNode | None:
    """The parent as it is by now, read again under the lock of the trees, as others may have moved it since.

    Refuses one that jobs are charged to, one below the node itself, and a tree that is too deep.
    """
    if parent is None:
        return None
    parent = policies.quotas.get(actor, pk=parent.pk)
    if parent.tenant_id is not None:
        raise Invalid.field(
            "parent", f"{parent} belongs to a tenant: only cohorts have children.", "not_a_cohort"
        )
    above = [parent]
    while above[-1].parent is not None:
        above.append(above[-1].parent)
    if node is not None and node.pk in {step.pk for step in above}:
        path = " → ".join(step.name for step in reversed(above))
        raise Invalid.field("parent", f"{parent} is below {node} ({path}): that would be a cycle.", "cycle")
    if len(above) + (1 if node is None else _height(node)) > MAX_DEPTH:
        raise Invalid.field("parent", f"the tree would be deeper than {MAX_DEPTH} levels.", "too_deep")
    return parent


def _height(node: QuotaNode) -> int:
    """How many levels the node has, with all below it."""
    height, level = 0, [node.pk]
    while level:
        height, level = height + 1, list(QuotaNode.objects.filter(parent__in=level).values_list("pk", flat=True))
    return height


@transaction.atomic
def create_quota_node(
    *,
    actor: Actor,
    name: str,
    parent: QuotaNode | None = None,
    tenant: Tenant | None = None,
    weight: float = 1.0,
) -> QuotaNode:
    """Make a cohort or, with a tenant, the leaf that its jobs are charged to."""
    policies.quotas.require(actor, "create", name)
    lock_trees()
    parent = _checked_parent(actor, parent)
    if tenant is not None and QuotaNode.objects.filter(tenant=tenant).exists():
        raise Conflict(f"Tenant {tenant} has a quota already.", code="exists")
    try:
        with transaction.atomic():
            node = QuotaNode.objects.create(
                name=checked_slug("name", name), parent=parent, tenant=tenant, weight=_weight(weight)
            )
    except IntegrityError:
        raise Conflict(f"There is a quota {name} already.", code="exists") from None
    facts = {"parent": parent.name if parent else None, "tenant": tenant.slug if tenant else None}
    _changed(actor, "quota.created", node, **facts)
    return node


@transaction.atomic
def move_quota_node(*, actor: Actor, node_id: int, parent: QuotaNode | None) -> QuotaNode:
    """Hang a node with all below it under another cohort, or make it a root."""
    lock_trees()
    node = policies.quotas.get(actor, "update", lock=True, pk=node_id)
    parent = _checked_parent(actor, parent, node)
    bounded = node.limits.exclude(borrowing_limit=None, lending_limit=None).exists()
    if parent is None and bounded:
        raise Invalid.field(
            "parent", f"{node} has borrowing or lending limits, which mean nothing at a root."
        )
    node.parent = parent
    node.save(update_fields=["parent"])
    _changed(actor, "quota.moved", node, parent=parent.name if parent else None)
    return node


@transaction.atomic
def set_weight(*, actor: Actor, node_id: int, weight: float) -> QuotaNode:
    """Change a node's weight in fair sharing."""
    node = policies.quotas.get(actor, "update", lock=True, pk=node_id)
    node.weight = _weight(weight)
    node.save(update_fields=["weight"])
    _changed(actor, "quota.weighted", node, weight=weight)
    return node


@transaction.atomic
def set_highest_priority(*, actor: Actor, node_id: int, highest_priority: int | None) -> QuotaNode:
    """Bound the priority that jobs below a node may name, unless a node between says otherwise; null: no bound here.

    Submissions that name more are refused from now on, and what was submitted before counts as this much.
    """
    node = policies.quotas.get(actor, "update", lock=True, pk=node_id)
    value = highest_priority
    if value is not None and (isinstance(value, bool) or value not in PRIORITIES):
        raise Invalid.field("highest_priority", f"a priority {_PRIORITY_RANGE}, or null.", "out_of_range")
    node.highest_priority = value
    node.save(update_fields=["highest_priority"])
    _changed(actor, "quota.priority_bounded", node, highest_priority=value)
    return node


# What may be set of a leaf's rules, with the words that each accepts.
POLICIES = {
    "strategy": tuple(Strategy),
    "within_queue": (Policy.NEVER, Policy.LOWER_PRIORITY, Policy.LOWER_OR_NEWER_EQUAL_PRIORITY),
    "reclaim": (Policy.NEVER, Policy.LOWER_PRIORITY, Policy.ANY),
    "borrow": (Policy.NEVER, Policy.LOWER_PRIORITY),
    "when_can_borrow": tuple(Fungibility),
    "when_can_preempt": tuple(Fungibility),
    "preference": tuple(Preference),
}
MAX_MINIMUM_RUN = 30 * 24 * 3600


@transaction.atomic
def set_rules(*, actor: Actor, node_id: int, rules: Mapping[str, Any]) -> QuotaNode:
    """Change some of a leaf's rules as a queue: its order, whom its jobs may evict, which flavor they take.

    Besides the words of POLICIES: `borrow_threshold`, the highest priority that may be evicted while borrowing
    (null: any below the job's own), and `minimum_run_seconds` before the leaf's own jobs may be evicted.
    """
    node = policies.quotas.get(actor, "set_limits", lock=True, pk=node_id)
    if node.tenant_id is None:
        raise Invalid.field("rules", f"{node} is a cohort: only the leaf of a tenant has a queue with rules.")
    errors = [error for name, value in rules.items() for error in _rule_errors(name, value)]
    if errors:
        raise Invalid.fields(errors)
    for name, value in rules.items():
        setattr(node, name, value)
    node.save(update_fields=list(rules))
    _changed(actor, "quota.rules_set", node, rules=dict(rules))
    return node


def _rule_errors(name: str, value: Any) -> list[FieldError]:
    """What is wrong with one rule."""
    field = f"rules.{name}"
    if name == "borrow_threshold":
        if value is not None and (isinstance(value, bool) or value not in PRIORITIES):
            return [_error(field, f"a priority {_PRIORITY_RANGE}, or null.", "out_of_range")]
    elif name == "minimum_run_seconds":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_MINIMUM_RUN:
            return [_error(field, f"whole seconds from 0 to {MAX_MINIMUM_RUN}.", "out_of_range")]
    elif name not in POLICIES:
        return [_error(field, f"there is no such rule; {suggestion(name, POLICIES)}", "unknown")]
    elif value not in POLICIES[name]:
        return [_error(field, f"one of {', '.join(POLICIES[name])}.", "invalid_choice")]
    return []


@transaction.atomic
def set_limits(
    *, actor: Actor, node_id: int, limits: Sequence[Mapping[str, Any]], seen: str | None = None
) -> QuotaNode:
    """Replace all limits of a node; what is in use stays, even where it is now above its limit.

    A limit: `{"flavor", "resource", "nominal", "borrowing_limit", "lending_limit"}`, the last two optional.
    Setting what is set already changes nothing. `seen` is the `limits_stamp` of what the writer looked at: raises
    Conflict (`changed_meanwhile`) when the limits are not those any more.
    """
    lock_trees()
    node = policies.quotas.get(actor, "set_limits", lock=True, pk=node_id)
    if seen is not None and seen != limits_stamp(node):
        raise Conflict(
            f"The limits of {node} were changed by somebody else meanwhile: "
            "compare them with yours and save again.",
            code="changed_meanwhile",
        )
    rows = _limit_rows(node, limits)
    present = {(row.flavor, row.resource): row for row in node.limits.all()}
    if present.keys() == rows.keys() and all(_same(row, present[key]) for key, row in rows.items()):
        return node
    node.limits.all().delete()
    QuotaLimit.objects.bulk_create(rows.values())
    facts = [
        [row.flavor, row.resource, row.nominal, row.borrowing_limit, row.lending_limit]
        for row in rows.values()
    ]
    _changed(actor, "quota.limits_set", node, limits=facts)
    return node


def _limit_rows(node: QuotaNode, limits: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], QuotaLimit]:
    """The limits as rows by flavor and resource, not yet stored. Raises Invalid naming everything that is wrong."""
    errors: list[FieldError] = []
    flavors = set(Flavor.objects.values_list("name", flat=True))
    rows: dict[tuple[str, str], QuotaLimit] = {}
    for position, limit in enumerate(limits):
        errors += _limit_errors(f"limits[{position}]", limit, flavors, root=node.parent_id is None)
        key = (str(limit.get("flavor")), str(limit.get("resource")))
        if key in rows:
            errors.append(_error(f"limits[{position}]", f"{key[0]}/{key[1]} is there twice.", "repeated"))
        rows[key] = QuotaLimit(
            node=node,
            flavor=key[0],
            resource=key[1],
            nominal=limit.get("nominal", 0),
            borrowing_limit=limit.get("borrowing_limit"),
            lending_limit=limit.get("lending_limit"),
        )
    if errors:
        raise Invalid.fields(errors)
    return rows


def _same(one: QuotaLimit, other: QuotaLimit) -> bool:
    amounts = ("nominal", "borrowing_limit", "lending_limit")
    return all(getattr(one, name) == getattr(other, name) for name in amounts)


def _error(field: str, message: str, code: str = "invalid") -> FieldError:
    return FieldError(field=field, message=message, code=code)


def _limit_errors(field: str, limit: Mapping[str, Any], flavors: set[str], *, root: bool) -> list[FieldError]:
    """Everything wrong with one limit."""
    errors: list[FieldError] = []
    if limit.get("flavor") not in flavors:
        message = (
            f"There is no flavor {limit.get('flavor')!r}; {suggestion(str(limit.get('flavor')), flavors)}"
        )
        errors.append(_error(f"{field}.flavor", message, "not_found"))
    if limit.get("resource") not in Resource.values:
        errors.append(_error(f"{field}.resource", f"one of {', '.join(Resource.values)}.", "invalid_choice"))
    for name in ("nominal", "borrowing_limit", "lending_limit"):
        value = limit.get(name)
        if value is None and name != "nominal":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_AMOUNT:
            errors.append(
                _error(f"{field}.{name}", f"a whole number from 0 to {MAX_AMOUNT}.", "out_of_range")
            )
        elif root and name != "nominal":
            message = "means nothing at a root, which has nobody to share with: leave it out."
            errors.append(_error(f"{field}.{name}", message, "root_limit"))
    return errors


@transaction.atomic
def delete_quota_node(*, actor: Actor, node_id: int) -> None:
    """Delete a node without children, use or history."""
    lock_trees()
    node = policies.quotas.get(actor, "delete", lock=True, pk=node_id)
    if node.children.exists():
        raise Conflict(f"{node} has children: move or delete them first.", code="in_use")
    if QuotaUsage.objects.filter(node=node, used__gt=0).exists():
        raise Conflict(f"{node} is in use: wait until its jobs have ended.", code="in_use")
    _changed(actor, "quota.deleted", node)
    try:
        with transaction.atomic():
            node.delete()
    except ProtectedError:
        raise Conflict(f"Grants were charged to {node}; their history keeps it.", code="in_use") from None
