"""What a submission is refused for at once: requests that could never start as things are configured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from django.utils import timezone

from apps.core.errors import FieldError, Invalid
from apps.fleet.models import Pool
from apps.fleet.queries import PoolMembers
from apps.tenants.models import Tenant
from engine.choices import combinations
from engine.placement import feasibility
from engine.quota import FlavorResource, QuotaTree

from .configuration import Configuration, configuration
from .requests import Groups, amounts_of, groups_of, lent_to, of_tenant

# What apps above this one know to be wrong with a spec: each appends its check in `AppConfig.ready()`.
CHECKS: list[Callable[[Tenant, dict[str, Any]], list[FieldError]]] = []


def default_pool() -> str:
    """The pool of jobs that name none: `default`, or the only one. Raises Invalid when that is open."""
    names = list(Pool.objects.order_by("name").values_list("name", flat=True)[:20])
    if "default" in names:
        return "default"
    if len(names) == 1:
        return names[0]
    known = ", ".join(names) or "there is none yet"
    raise Invalid.field("intent.pool", f"name the pool; known: {known}.", "required")


def impossible(
    tenant: Tenant, spec: dict[str, Any], *, prefix: str = "", configured: Configuration | None = None
) -> list[FieldError]:
    """Why a normalised spec can never start: an unknown pool, more than any quota gives, or than any node has.

    A pool without a node says nothing about nodes to come, so there only the quota is checked.
    """
    configured = configured or configuration(timezone.now())
    name = spec["intent"].get("pool") or default_pool()
    pool = configured.pools.get(name)
    if pool is None:
        known = ", ".join(sorted(configured.pools)) or "none"
        message = f"no pool {name}; known: {known}."
        return [FieldError(field=f"{prefix}intent.pool", message=message, code="unknown_pool")]
    groups = of_tenant(groups_of(spec, fewest=True), tenant.pk)
    if configured.fleet.terms is not None:
        groups = lent_to(groups, tenant.domain_id, spec["time_limit"])
    problem = _quota_problem(tenant, configured, pool, groups, prefix)
    if problem is None and pool.nodes:
        fleet = configured.fleet.fork()  # It keeps answers to itself, and several threads may ask.
        lent = {node_id for node_id in pool.nodes if pool.lends(node_id, tenant.domain_id)}
        allowed = np.array([int(node_id) in lent for node_id in fleet.ids], dtype=np.bool_)
        never = feasibility(fleet, groups, allowed=allowed) if len(fleet) else None
        if never is not None:
            text = never.detail[:1].upper() + never.detail[1:]
            field = "groups[0].resources"
            if fleet.terms is not None:
                shortest = lent_to(groups, tenant.domain_id, 0.0)
                field = field if feasibility(fleet, shortest, allowed=allowed) else "time_limit"
            problem = FieldError(field=f"{prefix}{field}", message=text, code=str(never.reason))
    return [problem] if problem else []


def too_urgent(configured: Configuration, tenant: Tenant, priority: int, *, prefix: str = "") -> list[FieldError]:
    """Why a job of the tenant may not name this priority."""
    leaf = configured.tenants[tenant.pk].quota_node
    highest = configured.highest_priority.get(leaf) if leaf is not None else None
    if highest is None or priority <= highest:
        return []
    message = f"Jobs of tenant {tenant.slug} may name at most priority {highest}, not {priority}: name less, or "
    message += "ask an operator to raise the highest priority of its quota."
    return [FieldError(field=f"{prefix}priority", message=message, code="priority_too_high")]


def _quota_problem(
    tenant: Tenant, configured: Configuration, pool: PoolMembers, groups: Groups, prefix: str
) -> FieldError | None:
    """The mildest obstacle over the pool's flavors, when no choice of them for the groups could ever hold the job."""
    field = f"{prefix}groups[0].resources"
    leaf, tree = configured.tenants[tenant.pk].quota_node, configured.tree
    if leaf is None:
        message = f"Tenant {tenant.slug} has no quota: ask an operator for one."
        return FieldError(field="tenant", message=message, code="no_quota")
    covered = {resource for _, resource in tree.nodes[leaf].limits}
    counted = [
        {name: amount for name, amount in amounts_of([group]).items() if name != "storage" or name in covered}
        for group in groups
    ]
    shortage = None
    for usage in _usages(tree, leaf, [flavor for flavor, _ in pool.flavors], counted):
        found = tree.ever_fits(leaf, usage)
        if found is None:
            return None
        if shortage is None or found.limit != "not covered":
            shortage = found
    if shortage is None:
        return FieldError(field=f"{prefix}intent.pool", message="The pool has no flavor.", code="no_flavor")
    return FieldError(field=field, message=shortage.text(), code="exceeds_max_quota")


def _usages(
    tree: QuotaTree, leaf: int, flavors: Sequence[str], amounts: Sequence[Mapping[str, int]]
) -> Iterator[dict[FlavorResource, int]]:
    """What the groups with these amounts would be charged in each choice of flavors that each could have by itself;
    where a group could have none, in each flavor for all."""
    open_to = [
        [
            place
            for place, flavor in enumerate(flavors)
            if tree.ever_fits(leaf, {(flavor, resource): amount for resource, amount in group.items()}) is None
        ]
        for group in amounts
    ]
    each = [(place,) * len(amounts) for place in range(len(flavors))]
    for chosen in combinations(open_to) if all(open_to) else each:
        usage: dict[FlavorResource, int] = {}
        for place, group in zip(chosen, amounts, strict=True):
            for resource, amount in group.items():
                key = (flavors[place], resource)
                usage[key] = usage.get(key, 0) + amount
        yield usage


def refuse_impossible(tenant: Tenant, spec: dict[str, Any]) -> None:
    """Raise Invalid when the job could never start, or names more priority than it may."""
    problems = [problem for check in CHECKS for problem in check(tenant, spec)]
    if not problems:
        configured = configuration(timezone.now())
        problems = too_urgent(configured, tenant, spec["priority"]) or impossible(tenant, spec, configured=configured)
    if problems:
        raise Invalid(problems[0]["message"], code=problems[0]["code"], errors=problems)
