"""A node's lifecycle and labels. Rows are locked by id."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.events.record import Fact, Move, move_many, record, record_all, transition

from .. import policies
from ..models import Node, NodeCredential
from ..states import LIVE, NODE_EDGES, NodeState
from ..validators import checked_labels, checked_taints


def node_fact(verb: str, node: Node, reason: str = "", **facts: Any) -> Fact:
    """A fact about a node, for its domain, its page and the fleet views."""
    return Fact(
        verb,
        "node",
        node.pk,
        domain_id=node.cluster.domain_id,
        facts={"name": node.name, **facts},
        reason=reason,
        topics=("fleet",),
    )


def _intend(actor: Actor, node: Node, state: NodeState, verb: str, reason: str) -> Node:
    """Set where an operator wants the node: at once if it is live, on its return if it is lost."""
    if node.state == NodeState.REMOVED:
        raise Conflict(f"Node {node} was removed: join it again.", code="stale_state")
    if node.state == NodeState.LOST:
        if node.intended_state != state:
            node.intended_state = state
            node.save(update_fields=["intended_state"])
            record(actor, node_fact(verb, node, reason, lost=True))
    elif node.state != state:
        transition(actor, node, NODE_EDGES, state, node_fact(verb, node, reason), intended_state=state)
    return node


@transaction.atomic
def cordon_node(*, actor: Actor, node_id: int, reason: str = "") -> Node:
    """No new work on the node; what runs stays. Cordoning twice changes nothing."""
    node = policies.nodes.get(actor, "cordon", lock=True, pk=node_id)
    if node.state == NodeState.DRAINING:
        raise Conflict(f"Node {node} is draining, which takes no new work either: uncordon it to stop that.")
    return _intend(actor, node, NodeState.CORDONED, "node.cordoned", reason)


@transaction.atomic
def uncordon_node(*, actor: Actor, node_id: int, reason: str = "") -> Node:
    """Open a cordoned or draining node to new work."""
    node = policies.nodes.get(actor, "uncordon", lock=True, pk=node_id)
    return _intend(actor, node, NodeState.READY, "node.uncordoned", reason)


@transaction.atomic
def drain_node(*, actor: Actor, node_id: int, reason: str = "") -> Node:
    """No new work, and what runs is moved away; an empty node ends cordoned."""
    node = policies.nodes.get(actor, "drain", lock=True, pk=node_id)
    return _intend(actor, node, NodeState.DRAINING, "node.draining", reason)


@transaction.atomic
def finish_drain(*, actor: Actor, node_id: int) -> Node:
    """A draining node that has become empty is cordoned; one that no longer drains is left alone."""
    node = policies.nodes.get(actor, "cordon", lock=True, pk=node_id)
    if node.state == NodeState.DRAINING:
        fact = node_fact("node.drained", node)
        transition(actor, node, NODE_EDGES, NodeState.CORDONED, fact, intended_state=NodeState.CORDONED)
    return node


@transaction.atomic
def remove_node(*, actor: Actor, node_id: int, reason: str = "") -> Node:
    """End a node for good: its credentials are revoked, and what runs on it is lost and placed elsewhere."""
    node = policies.nodes.get(actor, "remove", lock=True, pk=node_id)
    if node.state != NodeState.REMOVED:
        transition(actor, node, NODE_EDGES, NodeState.REMOVED, node_fact("node.removed", node, reason))
        NodeCredential.objects.filter(node=node, revoked_at__isnull=True).update(revoked_at=timezone.now())
    return node


@transaction.atomic
def set_labels(
    *,
    actor: Actor,
    node_id: int,
    labels: Mapping[str, str] | None = None,
    taints: list[Mapping[str, str]] | None = None,
) -> Node:
    """Replace the labels and, or, the taints of a node; None leaves them as they are."""
    node = policies.nodes.get(actor, "label", lock=True, pk=node_id)
    wanted_labels = node.labels if labels is None else checked_labels(labels)
    wanted_taints = node.taints if taints is None else checked_taints(taints)
    if (node.labels, node.taints) != (wanted_labels, wanted_taints):
        node.labels, node.taints = wanted_labels, wanted_taints
        node.save(update_fields=["labels", "taints"])
        record(actor, node_fact("node.labelled", node, labels=wanted_labels, taints=wanted_taints))
    return node


@transaction.atomic
def mark_lost(*, actor: Actor, node_ids: Iterable[int], reason: str) -> list[int]:
    """Declare silent nodes lost; returns those that really became so."""
    nodes = list(
        policies.nodes.visible(actor)
        .filter(pk__in=list(node_ids), state__in=sorted(LIVE))
        .select_related("cluster")
        .order_by("pk")
        .select_for_update(of=("self",))
    )
    for node in nodes:
        policies.nodes.require(actor, "cordon", node)
    move_many(Node, NODE_EDGES, [Move(node.pk, node.state, NodeState.LOST) for node in nodes])
    record_all(actor, [node_fact("node.lost", node, reason, was=node.state) for node in nodes])
    return [node.pk for node in nodes]


@transaction.atomic
def mark_returned(*, actor: Actor, node_id: int) -> None:
    """A lost node that speaks again goes where its operator wants it; others are left alone."""
    node = policies.nodes.get(actor, "report", lock=True, pk=node_id)
    if node.state == NodeState.LOST:
        fact = node_fact("node.returned", node, state=node.intended_state)
        transition(actor, node, NODE_EDGES, node.intended_state, fact)
