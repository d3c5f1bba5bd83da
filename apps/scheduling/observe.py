"""Observe: the rows become a snapshot that the engine decides on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.db.models import Q

from apps.fleet.queries import PoolMembers, pool_members
from apps.fleet.snapshot import load_fleet
from apps.jobs.models import Job
from apps.jobs.requests import cache
from apps.jobs.states import JobState
from apps.quotas.queries import load_tree
from apps.tenants.models import Tenant
from engine.cycle import Candidate, PoolView, Snapshot
from engine.fleet import Fleet

# Queued jobs looked at in one cycle, in the order of priority and age.
CANDIDATES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Pending:
    """What is stored about a pending job now, to see whether the verdict says anything new."""

    tenant_id: int
    reason: str
    detail: str
    position: int | None


@dataclass(frozen=True, slots=True)
class Observed:
    """The snapshot, and what apply needs to write its verdicts."""

    snapshot: Snapshot
    pending: dict[int, Pending]
    members: dict[str, PoolMembers]


def observe(now: datetime) -> Observed | None:
    """Read everything that a cycle needs; None when no job waits."""
    rows = list(
        Job.objects.filter(Q(not_before__isnull=True) | Q(not_before__lte=now), state=JobState.PENDING, held=False)
        .order_by("-priority", "pk")
        .values_list(
            "pk", "tenant_id", "priority", "submitted_at", "equivalence", "pool", "reason", "detail", "position",
            "failures",
        )[:CANDIDATES_MAX]
    )
    if not rows:
        return None
    known = cache()
    missing = known.missing({row[4] for row in rows})
    if missing:
        first = {row[4]: row[0] for row in reversed(rows) if row[4] in missing}
        for equivalence, spec in Job.objects.filter(pk__in=first.values()).values_list("equivalence", "spec"):
            known.add(equivalence, spec)
    tenants = {
        pk: (quota, domain, suspended)
        for pk, quota, domain, suspended in Tenant.objects.filter(pk__in={row[1] for row in rows}).values_list(
            "pk", "quota__pk", "domain_id", "suspended"
        )
    }
    members = pool_members(now)
    fleet = fleet_of(members)
    tree = load_tree()
    views: dict[str, PoolView] = {}
    candidates = []
    for pk, tenant_id, priority, submitted, equivalence, pool, _, _, _, failures in rows:
        quota, domain, _ = tenants[tenant_id]
        view = f"{pool}@{domain}"
        if view not in views and pool in members:
            views[view] = pool_view(fleet, members[pool], domain)
        groups, amounts = known[equivalence]
        queue = quota if quota is not None else -tenant_id
        candidates.append(
            Candidate(
                job=pk,
                queue=queue,
                priority=priority,
                submitted=submitted.timestamp(),
                groups=groups,
                amounts=charged(tree, queue, amounts),
                pool=view,
                attempts=failures,
                equivalence=equivalence,
            )
        )
    suspended = frozenset(quota or -pk for pk, (quota, _, stopped) in tenants.items() if stopped)
    snapshot = Snapshot(fleet=fleet, pools=views, tree=tree, candidates=candidates, suspended=suspended)
    pending = {row[0]: Pending(row[1], row[6], row[7], row[8]) for row in rows}
    return Observed(snapshot=snapshot, pending=pending, members=members)


def charged(tree: Any, queue: int, amounts: dict[str, int]) -> dict[str, int]:
    """What of the amounts the queue is charged: storage only where it has a storage quota."""
    if "storage" not in amounts or queue not in tree:
        return amounts
    if any(resource == "storage" for _, resource in tree.nodes[queue].limits):
        return amounts
    return {resource: amount for resource, amount in amounts.items() if resource != "storage"}


def fleet_of(members: dict[str, PoolMembers], *, ids: list[int] | None = None, lock: bool = False) -> Fleet:
    """The fleet with the shares and the trust under which its nodes are lent."""
    shares: dict[int, int] = {}
    trust: dict[int, int] = {}
    for pool in members.values():
        shares.update(pool.share_percent)
        trust.update(pool.trust)
    return load_fleet(shares=shares, trust=trust, ids=ids, lock=lock)


def pool_view(fleet: Fleet, pool: PoolMembers, domain_id: int) -> PoolView:
    """A pool as the tenants of one domain see it: only nodes that are lent to them."""
    index = {int(node_id): position for position, node_id in enumerate(fleet.ids)}

    def mask(node_ids: list[int]) -> Any:
        chosen = np.zeros(len(fleet), dtype=np.bool_)
        positions = [index[node_id] for node_id in node_ids if node_id in index and pool.lends(node_id, domain_id)]
        chosen[positions] = True
        return chosen

    return PoolView(nodes=mask(pool.nodes), flavors=[(name, mask(nodes)) for name, nodes in pool.flavors])
