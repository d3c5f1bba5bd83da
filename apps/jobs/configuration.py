"""What is derived from configuration, kept for as long as the configuration stands still."""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from apps.events.stamp import stamp
from apps.fleet.membership import PoolMembers
from apps.fleet.queries import pool_members
from apps.fleet.snapshot import Lent, load_lent
from apps.quotas.models import OVER_TIME, Budget, Measure
from apps.quotas.queries import load_nodes, load_rules
from apps.tenants.models import Tenant
from engine import quota
from engine.fleet import Fleet
from engine.lending import Lending
from engine.queues import QueueRules

# Terms begin and end by the clock, without an event.
KEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class TenantRow:
    """What placing its jobs needs to know of a tenant."""

    quota_node: int | None
    domain: int
    suspended: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """Pools and their members, lent nodes, the quota tree's limits and queues' rules, and tenants.

    `fleet` and `tree` are as if nothing were taken: what does not fit there never will.
    """

    stamp: int
    loaded_at: float
    pools: dict[str, PoolMembers]
    lent: dict[int, Lent]
    quota_nodes: list[quota.Node]
    tenants: dict[int, TenantRow]
    fleet: Fleet
    tree: quota.QuotaTree
    rules: dict[int, QueueRules]
    # Seconds that a queue's jobs run before they may be evicted.
    minimum_run: dict[int, int]
    # The highest priority that a queue's jobs may name, where there is one.
    highest_priority: dict[int, int]
    # Hard budgets that decide whether a job may start.
    budgets: list[Budget]
    # The terms of clusters that are lent with bounds, by id.
    lendings: dict[int, Lending]

    def priority(self, queue: int, named: int) -> int:
        """What a job's priority counts for: what it was submitted with, or the highest that its queue may name now."""
        return min(named, self.highest_priority.get(queue, named))


_kept: Configuration | None = None


def configuration(now: datetime) -> Configuration:
    """The present configuration; one read when nothing has changed.

    The stamp is read before the rest, so a change in between only causes one more load.
    """
    global _kept
    value, clock = stamp(), time.monotonic()
    if _kept is None or _kept.stamp != value or not 0 <= clock - _kept.loaded_at < KEEP_SECONDS:
        pools = pool_members(now)
        lent, nodes = load_lent(pools.values()), load_nodes()
        rules, minimum_run, highest_priority = load_rules()
        _kept = Configuration(
            stamp=value,
            loaded_at=clock,
            pools=pools,
            lent=lent,
            quota_nodes=nodes,
            fleet=Fleet.build([replace(one.row, ready=True) for one in lent.values()]),
            tree=quota.QuotaTree(nodes, {}),
            rules=rules,
            minimum_run=minimum_run,
            highest_priority=highest_priority,
            budgets=list(
                Budget.objects.filter(hard=True, measure__in=[Measure.RUNNING, *OVER_TIME]).select_related(
                    "tenant", "domain", "user"
                )
            ),
            lendings={one.cluster: bounds for one in lent.values() if (bounds := one.row.lending) is not None},
            tenants={
                pk: TenantRow(quota_node, domain, suspended)
                for pk, quota_node, domain, suspended in Tenant.objects.values_list(
                    "pk", "quota__pk", "domain_id", "suspended"
                )
            },
        )
    return _kept
