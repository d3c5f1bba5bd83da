"""Observe: what domains hold of the clusters that are lent up to a cap."""

from collections.abc import Collection
from datetime import datetime

from django.db import connection

from apps.fleet.models import Contribution
from apps.jobs.configuration import Configuration
from engine.lending import Amounts, Lending, Terms

# Members that have ended count as well: their room is given back with the whole attempt's.
HELD = (
    "SELECT n.cluster_id, t.domain_id, sum(p.cpu_millicores)::bigint, sum(p.memory_bytes)::bigint, "
    "sum((SELECT coalesce(sum((share->>1)::bigint), 0) FROM jsonb_array_elements(p.gpus) share))::bigint "
    "FROM jobs_attempt a JOIN jobs_placement p ON p.attempt_id = a.id JOIN fleet_node n ON n.id = p.node_id "
    "JOIN jobs_job j ON j.id = a.job_id JOIN tenants_tenant t ON t.id = j.tenant_id "
    "WHERE a.state IN ('granted', 'running') AND n.cluster_id = ANY(%s) GROUP BY 1, 2"
)


def held(clusters: Collection[int]) -> dict[tuple[int, int], Amounts]:
    """What the tenants of each domain hold on the nodes of these clusters, by (cluster, domain)."""
    with connection.cursor() as cursor:
        cursor.execute(HELD, [list(clusters)])
        return {(cluster, domain): (cpu, memory, gpu) for cluster, domain, cpu, memory, gpu in cursor.fetchall()}


def present_terms(configured: Configuration, now: datetime) -> Terms | None:
    """The terms of all nodes at `now`; what is held is read only where there is a cap."""
    terms = configured.fleet.terms
    if terms is None:
        return None
    capped = {pk: lending for pk, lending in configured.lendings.items() if _is_capped(lending)}
    return terms.at(now.timestamp(), terms.left_after(held(capped), capped) if capped else None)


def locked_terms(
    configured: Configuration, terms: Terms | None, node_ids: Collection[int], now: datetime
) -> Terms | None:
    """The terms of these nodes, as a fleet has them, at `now`.

    Their contributions with a cap stay locked until the transaction ends, so that nobody else fills it meanwhile.
    """
    if terms is None:
        return None
    clusters = {configured.lent[pk].cluster for pk in node_ids if pk in configured.lent}
    capped = {pk: one for pk in clusters if (one := configured.lendings.get(pk)) is not None and _is_capped(one)}
    if not capped:
        return terms.at(now.timestamp())
    list(Contribution.objects.select_for_update(of=("self",)).filter(cluster__in=capped).order_by("pk"))
    return terms.at(now.timestamp(), terms.left_after(held(capped), capped))


def _is_capped(lending: Lending) -> bool:
    return any(offer.cap is not None for offer in lending.offers)
