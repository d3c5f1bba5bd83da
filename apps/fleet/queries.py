"""Reads of the fleet: lists for people, membership for the scheduler, credentials for agents."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.crypto import digest
from apps.core.errors import FieldError, Invalid
from apps.events.models import Event
from apps.tenants.models import Domain
from engine.backfill import Mode
from engine.lending import UNLIMITED, Amounts
from engine.order import Reach

from . import policies
from .membership import NodeRow, PoolMembers, Terms, lending, members
from .models import Cluster, Contribution, Flavor, Gpu, JoinToken, Node, NodeCredential, Pool, Region
from .states import NodeState
from .windows import weekly


def list_clusters(actor: Actor) -> QuerySet[Cluster]:
    """Clusters with their domain."""
    return policies.clusters.visible(actor).select_related("domain")


def list_nodes(actor: Actor) -> QuerySet[Node]:
    """Nodes with cluster, domain and cards, removed ones too (a filter leaves them out)."""
    return policies.nodes.visible(actor).select_related("cluster__domain").prefetch_related("gpus")


def list_contributions(actor: Actor) -> QuerySet[Contribution]:
    """Terms of lending with cluster and consumers."""
    return (
        policies.contributions.visible(actor).select_related("cluster__domain").prefetch_related("consumers")
    )


def list_join_tokens(actor: Actor) -> QuerySet[JoinToken]:
    """Join tokens (never the token itself) with cluster and the node that used them."""
    return policies.join_tokens.visible(actor).select_related("cluster", "node")


def list_pools(actor: Actor) -> QuerySet[Pool]:
    """Pools with their flavors."""
    return policies.pools.visible(actor).prefetch_related("flavors")


def list_regions(actor: Actor) -> QuerySet[Region]:
    """What is said of regions."""
    return policies.regions.visible(actor)


def list_flavors(actor: Actor) -> QuerySet[Flavor]:
    """Flavors with their pool."""
    return policies.flavors.visible(actor).select_related("pool")


def consumers_named(slugs: list[str]) -> list[Domain]:
    """The domains with these slugs: one may lend to domains that one does not otherwise see."""
    found = {domain.slug: domain for domain in Domain.objects.filter(slug__in=slugs)}
    missing = [slug for slug in slugs if slug not in found]
    if missing:
        message = f"There is no domain {missing[0]}."
        raise Invalid(message, errors=[FieldError(field="consumers", message=message, code="not_found")])
    return list(found.values())


def node_of_credential(credential: str) -> Node | None:
    """The node whose agent proves itself with this credential; None if unknown, revoked or removed."""
    if not credential:
        return None
    found = (
        NodeCredential.objects.select_related("node__cluster")
        .filter(digest=digest(credential), revoked_at__isnull=True)
        .exclude(node__state=NodeState.REMOVED)
        .first()
    )
    return found.node if found is not None else None


# What a contribution is, and the domains that it is for.
Offered = tuple[Contribution, frozenset[int]]


def _present_terms() -> list[Offered]:
    rows = Contribution.objects.select_related("cluster").prefetch_related("consumers")
    return [(row, frozenset(domain.pk for domain in row.consumers.all())) for row in rows]


def terms_at(at: datetime) -> list[Offered]:
    """The contributions as they were at a time, by the log; those of today of a cluster that was not lent then."""
    present = {row.pk: (row, consumers) for row, consumers in _present_terms()}
    domains = dict(Domain.objects.values_list("slug", "pk"))
    clusters = {cluster.name: cluster for cluster in Cluster.objects.all()}
    known: dict[int, Event] = {}
    logged: set[int] = set()
    for event in Event.objects.filter(verb__in=CONTRIBUTED).order_by("id"):
        logged.add(event.subject_id)
        if event.at <= at:
            known[event.subject_id] = event
    found = [item for pk, item in present.items() if pk not in logged]
    for pk, event in known.items():
        facts, cluster = event.facts, clusters.get(event.facts["cluster"])
        if event.verb == "contribution.deleted" or cluster is None:
            continue
        row = Contribution(pk=pk, cluster=cluster)
        for name in TOLD:
            # What the log did not tell then is as it is now.
            default = getattr(present[pk][0], name) if pk in present else getattr(row, name)
            setattr(row, name, facts.get(name, getattr(row, name) if name in BOUNDS else default))
        found.append((row, frozenset(domains[slug] for slug in facts["consumers"] if slug in domains)))
    lent = {row.cluster_id for row, _ in found}
    return found + [item for item in present.values() if item[0].cluster_id not in lent]


# Left out of the log where there are none.
BOUNDS = ("windows", "timezone", "cap_cpu_millicores", "cap_memory_bytes", "cap_gpu_milli")
TOLD = ("share_percent", "trust", "price_per_cpu_hour", "price_per_gpu_hour", *BOUNDS)
CONTRIBUTED = ("contribution.created", "contribution.changed", "contribution.deleted")


def node_rows(
    now: datetime, offered: Iterable[Offered] | None = None, around: datetime | None = None
) -> list[NodeRow]:
    """Every node that is not removed, with the terms in force at `now` and their windows around another time; four
    queries in all. `offered` are terms in place of today's."""
    terms: dict[int, list[Terms]] = defaultdict(list)
    owners: dict[int, int] = {}
    for contribution, consumers in _present_terms() if offered is None else offered:
        owners[contribution.cluster_id] = contribution.cluster.domain_id
        lent = Terms(
            trust=contribution.trust,
            share_percent=contribution.share_percent,
            consumers=consumers or None,
            starts_at=contribution.starts_at,
            ends_at=contribution.ends_at,
            price_per_cpu_hour=float(contribution.price_per_cpu_hour),
            price_per_gpu_hour=float(contribution.price_per_gpu_hour),
            id=contribution.pk,
            windows=weekly(contribution.windows),
            timezone=contribution.timezone,
            cap=_cap(contribution),
            jurisdictions=frozenset(contribution.jurisdictions),
        )
        if lent.in_force(now):
            terms[contribution.cluster_id].append(lent)
    lendings = {pk: lending(owners[pk], mine, around or now) for pk, mine in terms.items()}
    models: dict[int, set[str]] = defaultdict(set)
    for node_id, model in Gpu.objects.order_by().values_list("node_id", "model").distinct():
        models[node_id].add(model)
    rows = (
        Node.objects.exclude(state=NodeState.REMOVED)
        .order_by("pk")
        .values_list(
            "pk", "cluster_id", "cluster__name", "cluster__domain__slug", "cluster__region", "labels"
        )
    )
    return [
        NodeRow(
            pk, cluster, domain, region, labels, frozenset(models.get(pk, ())), terms.get(cluster_id, ()),
            lendings.get(cluster_id),
        )
        for pk, cluster_id, cluster, domain, region, labels in rows
    ]


def _cap(contribution: Contribution) -> Amounts | None:
    """The cap for the engine; None where none is set."""
    limits = (contribution.cap_cpu_millicores, contribution.cap_memory_bytes, contribution.cap_gpu_milli)
    if limits == (None, None, None):
        return None
    cpu, memory, gpu = (UNLIMITED if limit is None else limit for limit in limits)
    return cpu, memory, gpu


def pool_members(
    now: datetime, offered: Iterable[Offered] | None = None, around: datetime | None = None
) -> dict[str, PoolMembers]:
    """Every pool's members and flavors at `now`, in a fixed number of queries; more as for `node_rows`."""
    rows = node_rows(now, offered, around)
    return {
        pool.name: replace(
            members(pool.query, [(flavor.name, flavor.match) for flavor in pool.flavors.all()], rows),
            backfill=Mode(pool.backfill),
            reach=Reach(pool.priority_reach),
        )
        for pool in Pool.objects.prefetch_related("flavors")
    }
