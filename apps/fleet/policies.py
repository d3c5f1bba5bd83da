"""Who may see and change clusters, nodes, the terms of lending, and pools.

Providers govern what their domain owns. Tenants see the nodes that are lent to their domain, and every pool.
"""

from typing import ClassVar

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.core.actors import Actor
from apps.core.policies import M, Policy, operator
from apps.tenants.models import Tenant
from apps.tenants.policies import provider_of

from .models import Cluster, Contribution, Flavor, JoinToken, Node, Pool, Region


def has_any_role(actor: Actor) -> bool:
    """Whether the person belongs anywhere at all."""
    return actor.operator or actor.auditor or bool(actor.tenant_roles) or bool(actor.domain_roles)


def lent_to(actor: Actor, cluster: str) -> Q:
    """Clusters (their id at the path `cluster`) that are lent to a domain of one of the actor's tenants."""
    domains = Tenant.objects.filter(pk__in=list(actor.tenant_roles)).values("domain_id")
    terms = Contribution.objects.filter(cluster_id=OuterRef(cluster))
    if not actor.tenant_roles:
        return Q(pk__in=[])
    return Q(Exists(terms.filter(Q(consumers__isnull=True) | Q(consumers__in=domains))))


def governs(actor: Actor, cluster: Cluster) -> bool:
    """Operators, and providers of the cluster's domain."""
    return provider_of(actor, cluster.domain_id)


def observes(actor: Actor, cluster: Cluster) -> bool:
    """Who governs the cluster, and auditors."""
    return actor.auditor or governs(actor, cluster)


class ClusterPolicy(Policy[Cluster]):
    model = Cluster
    noun = "cluster"
    # `create` is asked of the domain.
    rules: ClassVar = {
        "create": lambda actor, domain: provider_of(actor, domain.pk),
        "update": governs,
        "delete": governs,
        "join": governs,
        "lend": governs,
        # The samples of its nodes as they come.
        "observe": observes,
    }
    scopes: ClassVar = {
        "create": "admin",
        "delete": "admin",
        "join": "admin",
        "lend": "admin",
        "observe": "read",
    }

    def _visible(self, actor: Actor, rows: QuerySet[Cluster]) -> QuerySet[Cluster]:
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(Q(domain_id__in=list(actor.domain_roles)) | lent_to(actor, "pk"))


class NodePolicy(Policy[Node]):
    model = Node
    noun = "node"
    rules: ClassVar = {
        **dict.fromkeys(
            ("cordon", "uncordon", "drain", "label", "remove", "rotate_credentials", "revoke_credentials"),
            lambda actor, node: governs(actor, node.cluster),
        ),
        # What only the node's own agent tells about it.
        "report": lambda actor, node: actor.node_id == node.pk,
    }
    scopes: ClassVar = {"remove": "admin", "rotate_credentials": "admin", "revoke_credentials": "admin"}

    def _visible(self, actor: Actor, rows: QuerySet[Node]) -> QuerySet[Node]:
        if actor.node_id is not None:
            return rows.filter(pk=actor.node_id)
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(Q(cluster__domain_id__in=list(actor.domain_roles)) | lent_to(actor, "cluster_id"))


class OfCluster(Policy[M]):
    """What hangs on a cluster and only its governors and auditors see."""

    rules: ClassVar = {
        "update": lambda actor, row: governs(actor, row.cluster),
        "delete": lambda actor, row: governs(actor, row.cluster),
    }
    scopes: ClassVar = {"update": "admin", "delete": "admin"}

    def _visible(self, actor: Actor, rows: QuerySet[M]) -> QuerySet[M]:
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(cluster__domain_id__in=list(actor.domain_roles))


class ContributionPolicy(OfCluster[Contribution]):
    model = Contribution
    noun = "contribution"


class JoinTokenPolicy(OfCluster[JoinToken]):
    model = JoinToken
    noun = "join token"


class OfOperators(Policy[M]):
    """What operators govern, and everybody sees who belongs anywhere."""

    rules: ClassVar = dict.fromkeys(("create", "update", "delete", "set"), operator)
    scopes: ClassVar = dict.fromkeys(("create", "update", "delete", "set"), "admin")

    def _visible(self, actor: Actor, rows: QuerySet[M]) -> QuerySet[M]:
        return rows.all() if has_any_role(actor) else rows.none()


class PoolPolicy(OfOperators[Pool]):
    model = Pool
    noun = "pool"


class FlavorPolicy(OfOperators[Flavor]):
    model = Flavor
    noun = "flavor"


class RegionPolicy(OfOperators[Region]):
    model = Region
    noun = "region"


clusters = ClusterPolicy()
regions = RegionPolicy()
nodes = NodePolicy()
contributions = ContributionPolicy()
join_tokens = JoinTokenPolicy()
pools = PoolPolicy()
flavors = FlavorPolicy()
