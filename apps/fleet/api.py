"""REST: clusters, nodes, join tokens, contributions, pools and flavors."""

from datetime import timedelta
from typing import Any

from rest_framework.request import Request

from apps.core.actors import Actor
from apps.core.api import ApiView, ReasonBody, operation
from apps.tenants import policies as tenant_policies

from . import commands, policies, queries
from .filters import ClusterFilter, FlavorFilter, NodeFilter, OfClusterFilter
from .models import Cluster
from .serializers import (
    ClusterAnswer,
    ClusterBody,
    ClusterChange,
    ContributionAnswer,
    ContributionBody,
    CredentialAnswer,
    FlavorAnswer,
    FlavorBody,
    FlavorChange,
    JoinTokenAnswer,
    JoinTokenBody,
    NewJoinTokenAnswer,
    NodeAnswer,
    NodeChange,
    PoolAnswer,
    PoolBody,
    PoolChange,
    RegionAnswer,
    RegionBody,
    TermsBody,
)
from .telemetry import telemetry


class Clusters(ApiView):
    @operation(listing=True, answer=ClusterAnswer, filters=ClusterFilter)
    def get(self, request: Request) -> Any:
        """Clusters that you can see."""
        return queries.list_clusters(self.actor)

    @operation(body=ClusterBody, answer=ClusterAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a cluster in a domain."""
        data = {**self.data, "domain": tenant_policies.domains.get(self.actor, slug=self.data["domain"])}
        return commands.create_cluster(actor=self.actor, **data)


class ClusterDetail(ApiView):
    @operation(answer=ClusterAnswer)
    def get(self, request: Request, cluster_id: int) -> Any:
        """One cluster."""
        return policies.clusters.get(self.actor, pk=cluster_id)

    @operation(body=ClusterChange, answer=ClusterAnswer)
    def patch(self, request: Request, cluster_id: int) -> Any:
        """Change where a cluster stands, or whose it is."""
        data = dict(self.data)
        if "domain" in data:
            data["domain"] = tenant_policies.domains.get(self.actor, slug=data["domain"])
        return commands.update_cluster(actor=self.actor, cluster_id=cluster_id, **data)

    @operation()
    def delete(self, request: Request, cluster_id: int) -> None:
        """Delete a cluster that never had a node."""
        commands.delete_cluster(actor=self.actor, cluster_id=cluster_id)


class Nodes(ApiView):
    @operation(listing=True, answer=NodeAnswer, filters=NodeFilter)
    def get(self, request: Request) -> Any:
        """Nodes that you can see; removed ones only when asked for by state."""
        nodes = self.paginate(queries.list_nodes(self.actor))
        samples = telemetry([node.pk for node in nodes])
        for node in nodes:
            node.telemetry = samples.get(node.pk)
        return nodes


class NodeDetail(ApiView):
    @operation(answer=NodeAnswer)
    def get(self, request: Request, node_id: int) -> Any:
        """One node."""
        node = policies.nodes.get(self.actor, pk=node_id)
        node.telemetry = telemetry([node_id]).get(node_id)  # type: ignore[attr-defined]
        return node

    @operation(body=NodeChange, answer=NodeAnswer)
    def patch(self, request: Request, node_id: int) -> Any:
        """Replace the labels or the taints of a node."""
        return commands.set_labels(actor=self.actor, node_id=node_id, **self.data)

    @operation()
    def delete(self, request: Request, node_id: int) -> None:
        """Remove a node for good; what runs on it is placed elsewhere."""
        commands.remove_node(actor=self.actor, node_id=node_id)


class Cordon(ApiView):
    @operation(body=ReasonBody, answer=NodeAnswer)
    def post(self, request: Request, node_id: int) -> Any:
        """Take no new work on the node; what runs stays."""
        return commands.cordon_node(actor=self.actor, node_id=node_id, **self.data)


class Uncordon(ApiView):
    @operation(body=ReasonBody, answer=NodeAnswer)
    def post(self, request: Request, node_id: int) -> Any:
        """Open a cordoned or draining node to new work."""
        return commands.uncordon_node(actor=self.actor, node_id=node_id, **self.data)


class Drain(ApiView):
    @operation(body=ReasonBody, answer=NodeAnswer)
    def post(self, request: Request, node_id: int) -> Any:
        """Move away what runs on the node and take no new work."""
        return commands.drain_node(actor=self.actor, node_id=node_id, **self.data)


class Credentials(ApiView):
    @operation(answer=CredentialAnswer)
    def post(self, request: Request, node_id: int) -> Any:
        """Replace the node's credential; the new one is shown this one time."""
        node, credential = commands.rotate_credentials(actor=self.actor, node_id=node_id)
        return {"node": node.pk, "credential": credential}

    @operation()
    def delete(self, request: Request, node_id: int) -> None:
        """Revoke the node's credentials: its agent stops and must join again."""
        commands.revoke_credentials(actor=self.actor, node_id=node_id)


class JoinTokens(ApiView):
    @operation(listing=True, answer=JoinTokenAnswer, filters=OfClusterFilter)
    def get(self, request: Request) -> Any:
        """One-time join tokens of your clusters, newest first."""
        return queries.list_join_tokens(self.actor)

    @operation(body=JoinTokenBody, answer=NewJoinTokenAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a one-time token with which a node joins a cluster; it is shown this one time."""
        row, token = commands.create_join_token(
            actor=self.actor,
            cluster=_cluster(self.actor, self.data["cluster"]),
            expires_in=timedelta(seconds=self.data["expires_in_seconds"]),
        )
        row.token = token  # type: ignore[attr-defined]
        return row


class JoinTokenDetail(ApiView):
    @operation()
    def delete(self, request: Request, token_id: int) -> None:
        """Take back a join token that nobody has used."""
        commands.revoke_join_token(actor=self.actor, token_id=token_id)


class Contributions(ApiView):
    @operation(listing=True, answer=ContributionAnswer, filters=OfClusterFilter)
    def get(self, request: Request) -> Any:
        """The terms under which your domain lends its clusters."""
        return queries.list_contributions(self.actor)

    @operation(body=ContributionBody, answer=ContributionAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Lend a cluster."""
        terms = dict(self.data)
        cluster = _cluster(self.actor, terms.pop("cluster"))
        consumers = queries.consumers_named(terms.pop("consumers", []))
        return commands.create_contribution(actor=self.actor, cluster=cluster, consumers=consumers, **terms)


class ContributionDetail(ApiView):
    @operation(answer=ContributionAnswer)
    def get(self, request: Request, contribution_id: int) -> Any:
        """One contribution."""
        return policies.contributions.get(self.actor, pk=contribution_id)

    @operation(body=TermsBody, answer=ContributionAnswer)
    def patch(self, request: Request, contribution_id: int) -> Any:
        """Change the terms; what runs goes on."""
        terms = dict(self.data)
        consumers = queries.consumers_named(terms.pop("consumers")) if "consumers" in terms else None
        return commands.update_contribution(
            actor=self.actor, contribution_id=contribution_id, consumers=consumers, **terms
        )

    @operation()
    def delete(self, request: Request, contribution_id: int) -> None:
        """End the lending; what runs goes on."""
        commands.delete_contribution(actor=self.actor, contribution_id=contribution_id)


class Regions(ApiView):
    @operation(listing=True, answer=RegionAnswer)
    def get(self, request: Request) -> Any:
        """What is said of regions: the ways between them, and their power."""
        return queries.list_regions(self.actor)


class RegionDetail(ApiView):
    @operation(answer=RegionAnswer)
    def get(self, request: Request, region: str) -> Any:
        """One region."""
        return policies.regions.get(self.actor, name=region)

    @operation(body=RegionBody, answer=RegionAnswer)
    def put(self, request: Request, region: str) -> Any:
        """Say all that is known of a region."""
        return commands.set_region(actor=self.actor, name=region, **self.data)

    @operation()
    def delete(self, request: Request, region: str) -> None:
        """Forget what was said of a region."""
        commands.delete_region(actor=self.actor, name=region)


class Pools(ApiView):
    @operation(listing=True, answer=PoolAnswer)
    def get(self, request: Request) -> Any:
        """Pools with their flavors."""
        return queries.list_pools(self.actor)

    @operation(body=PoolBody, answer=PoolAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a pool out of a query over lent nodes."""
        return commands.create_pool(actor=self.actor, **self.data)


class PoolDetail(ApiView):
    @operation(answer=PoolAnswer)
    def get(self, request: Request, pool_id: int) -> Any:
        """One pool."""
        return policies.pools.get(self.actor, pk=pool_id)

    @operation(body=PoolChange, answer=PoolAnswer)
    def patch(self, request: Request, pool_id: int) -> Any:
        """Change a pool's query or description."""
        return commands.update_pool(actor=self.actor, pool_id=pool_id, **self.data)

    @operation()
    def delete(self, request: Request, pool_id: int) -> None:
        """Delete a pool with its flavors."""
        commands.delete_pool(actor=self.actor, pool_id=pool_id)


class Flavors(ApiView):
    @operation(listing=True, answer=FlavorAnswer, filters=FlavorFilter)
    def get(self, request: Request) -> Any:
        """Flavors of all pools."""
        return queries.list_flavors(self.actor)

    @operation(body=FlavorBody, answer=FlavorAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a flavor in a pool."""
        data = {**self.data, "pool": policies.pools.get(self.actor, name=self.data["pool"])}
        return commands.create_flavor(actor=self.actor, **data)


class FlavorDetail(ApiView):
    @operation(answer=FlavorAnswer)
    def get(self, request: Request, flavor_id: int) -> Any:
        """One flavor."""
        return policies.flavors.get(self.actor, pk=flavor_id)

    @operation(body=FlavorChange, answer=FlavorAnswer)
    def patch(self, request: Request, flavor_id: int) -> Any:
        """Change what a flavor takes and when it is asked."""
        return commands.update_flavor(actor=self.actor, flavor_id=flavor_id, **self.data)

    @operation()
    def delete(self, request: Request, flavor_id: int) -> None:
        """Delete a flavor."""
        commands.delete_flavor(actor=self.actor, flavor_id=flavor_id)


def _cluster(actor: Actor, name: str) -> Cluster:
    return policies.clusters.get(actor, name=name)
