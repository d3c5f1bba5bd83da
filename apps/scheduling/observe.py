"""Observe: the rows become a snapshot that the engine decides on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.db.models import Q

from apps.fleet.membership import PoolMembers
from apps.fleet.snapshot import load_fleet
from apps.jobs.models import Job
from apps.jobs.requests import cache
from apps.jobs.states import JobState
from apps.quotas.queries import load_tree
from engine.cycle import Candidate, PoolView, Snapshot
from engine.fleet import Fleet
from engine.quota import QuotaTree

from .configuration import Configuration, configuration

# Queued jobs looked at in one cycle, in the order of priority and age.
CANDIDATES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Observed:
    """The snapshot, what is stored about its pending jobs (reason, detail), and the configuration behind it."""

    snapshot: Snapshot
    pending: dict[int, tuple[str, str]]
    configuration: Configuration


def observe(now: datetime) -> Observed | None:
    """Read everything that a cycle needs; None when no job waits."""
    rows = list(
        Job.objects.filter(Q(not_before__isnull=True) | Q(not_before__lte=now), state=JobState.PENDING, held=False)
        .order_by("-priority", "pk")
        .values_list(
            "pk", "tenant_id", "priority", "submitted_at", "equivalence", "pool", "failures", "reason", "detail"
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
    configured = configuration(now)
    fleet = load_fleet(configured.lent)
    tree = load_tree(configured.quota_nodes)
    views: dict[str, PoolView] = {}
    suspended = set()
    candidates = []
    for pk, tenant_id, priority, submitted, equivalence, pool, failures, _, _ in rows:
        tenant = configured.tenants[tenant_id]
        view = f"{pool}@{tenant.domain}"
        if view not in views and pool in configured.pools:
            views[view] = pool_view(fleet, configured.pools[pool], tenant.domain)
        groups, amounts = known[equivalence]
        queue = tenant.quota_node if tenant.quota_node is not None else -tenant_id
        if tenant.suspended:
            suspended.add(queue)
        candidates.append(
            Candidate(
                job=pk,
                queue=queue,
                priority=priority,
                submitted=submitted.timestamp(),
                groups=groups,
                amounts=charged(tree, queue, amounts),
                pool=view if view in views else pool,
                attempts=failures,
                equivalence=equivalence,
            )
        )
    snapshot = Snapshot(fleet=fleet, pools=views, tree=tree, candidates=candidates, suspended=frozenset(suspended))
    return Observed(snapshot=snapshot, pending={row[0]: row[7:9] for row in rows}, configuration=configured)


def charged(tree: QuotaTree, queue: int, amounts: dict[str, int]) -> dict[str, int]:
    """What of the amounts the queue is charged: storage only where it has a storage quota."""
    if "storage" not in amounts or queue not in tree:
        return amounts
    if any(resource == "storage" for _, resource in tree.nodes[queue].limits):
        return amounts
    return {resource: amount for resource, amount in amounts.items() if resource != "storage"}


def pool_view(fleet: Fleet, pool: PoolMembers, domain_id: int) -> PoolView:
    """A pool as the tenants of one domain see it: only nodes that are lent to them."""
    index = {int(node_id): row for row, node_id in enumerate(fleet.ids)}

    def mask(node_ids: list[int]) -> Any:
        chosen = np.zeros(len(fleet), dtype=np.bool_)
        chosen[[index[pk] for pk in node_ids if pk in index and pool.lends(pk, domain_id)]] = True
        return chosen

    return PoolView(nodes=mask(pool.nodes), flavors=[(name, mask(nodes)) for name, nodes in pool.flavors])
