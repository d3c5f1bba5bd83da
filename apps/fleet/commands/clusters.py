"""Clusters, and the one-time tokens with which nodes join them."""

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.crypto import digest, new_token
from apps.core.errors import Conflict, Invalid
from apps.events.record import Fact, record
from apps.tenants.commands import checked_slug
from apps.tenants.models import Domain

from .. import policies
from ..models import Cluster, JoinToken

JOIN_TOKEN_MAX = timedelta(days=7)


def cluster_fact(verb: str, cluster: Cluster, **facts: object) -> Fact:
    """A fact about a cluster, for its domain and the fleet views."""
    return Fact(verb, "cluster", cluster.pk, domain_id=cluster.domain_id, facts=facts, topics=("fleet",))


@transaction.atomic
def create_cluster(
    *, actor: Actor, domain: Domain, name: str, kind: str = Cluster.Kind.AGENTS, region: str = ""
) -> Cluster:
    """Make a cluster in a domain. Raises Conflict when the name is taken."""
    policies.clusters.require(actor, "create", domain)
    if kind not in Cluster.Kind.values:
        raise Invalid.field("kind", f"{kind!r} is not a kind: one of {', '.join(Cluster.Kind.values)}.")
    if region:
        checked_slug("region", region)
    try:
        with transaction.atomic():
            cluster = Cluster.objects.create(
                domain=domain, name=checked_slug("name", name), kind=kind, region=region
            )
    except IntegrityError:
        raise Conflict(f"There is a cluster {name} already.", code="exists") from None
    record(actor, cluster_fact("cluster.created", cluster, name=name, kind=kind, region=region))
    return cluster


@transaction.atomic
def update_cluster(
    *, actor: Actor, cluster_id: int, region: str | None = None, domain: Domain | None = None
) -> Cluster:
    """Change where a cluster stands, or whose it is; None leaves that as it is.

    Only who may create a cluster in the new domain can move one there.
    """
    cluster = policies.clusters.get(actor, "update", lock=True, pk=cluster_id)
    changed: dict[str, str] = {}
    if region is not None and region != cluster.region:
        cluster.region = checked_slug("region", region) if region else ""
        changed["region"] = region
    if domain is not None and domain.pk != cluster.domain_id:
        policies.clusters.require(actor, "create", domain)
        cluster.domain = domain
        changed["domain"] = domain.slug
    if changed:
        cluster.save(update_fields=list(changed))
        record(actor, cluster_fact("cluster.changed", cluster, **changed))
    return cluster


@transaction.atomic
def delete_cluster(*, actor: Actor, cluster_id: int) -> None:
    """Delete a cluster that never had a node; with history it stays, empty of live nodes."""
    cluster = policies.clusters.get(actor, "delete", lock=True, pk=cluster_id)
    if cluster.nodes.exists():
        raise Conflict(
            f"Cluster {cluster} has nodes, and what ran on them refers to it: remove the nodes and keep it.",
            code="in_use",
        )
    record(actor, cluster_fact("cluster.deleted", cluster, name=cluster.name))
    cluster.delete()


@transaction.atomic
def create_join_token(
    *, actor: Actor, cluster: Cluster, expires_in: timedelta = timedelta(hours=1)
) -> tuple[JoinToken, str]:
    """Make a right to join one node; returns the row and the token, which is shown this one time."""
    policies.clusters.require(actor, "join", cluster)
    if cluster.kind != Cluster.Kind.AGENTS:
        raise Invalid.field(
            "cluster", f"{cluster} is a {cluster.kind} cluster: its nodes do not join by token."
        )
    if not timedelta(0) < expires_in <= JOIN_TOKEN_MAX:
        raise Invalid.field("expires_in", f"more than 0 and at most {JOIN_TOKEN_MAX.days} days.")
    token = new_token("rmj")
    row = JoinToken.objects.create(
        cluster=cluster,
        digest=digest(token),
        expires_at=timezone.now() + expires_in,
        created_by=actor.label,
    )
    facts = {"cluster": cluster.name, "expires_at": row.expires_at.isoformat()}
    record(actor, Fact("join_token.created", "join_token", row.pk, domain_id=cluster.domain_id, facts=facts))
    return row, token


@transaction.atomic
def revoke_join_token(*, actor: Actor, token_id: int) -> None:
    """Take back a token that nobody has used; a used one stays as the record of the joining."""
    token = policies.join_tokens.get(actor, "delete", lock=True, pk=token_id)
    if token.used_at is not None:
        raise Conflict("This token was used: remove the node instead.", code="in_use")
    record(actor, Fact("join_token.revoked", "join_token", token.pk, domain_id=token.cluster.domain_id))
    token.delete()
