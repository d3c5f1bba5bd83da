"""How a machine becomes a node: its one-time token, its credential, and what it says it has."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.crypto import digest, new_token
from apps.core.errors import Conflict, Invalid, Unauthenticated
from apps.core.serializers import check_json
from apps.events.record import record
from rmctl.agent.protocol import Gpu as GpuInventory
from rmctl.agent.protocol import Inventory

from .. import policies
from ..models import Gpu, JoinToken, Node, NodeCredential
from ..states import NodeState
from ..validators import checked_node_name
from .connections import require_newest
from .holdings import checked_holdings
from .nodes import node_fact

MAX_AMOUNT = 2**53
MAX_GPUS = 1024
CAPACITY = ("cpu_millicores", "memory_bytes", "storage_bytes")
SYSTEM_FIELDS = (
    "hostname", "os", "arch", "python", "cpu_model", "cpu_flags", "gpu_compute", "gpu_driver", "interconnects",
    "packages",
)  # fmt: skip


def checked_inventory(inventory: Mapping[str, Any]) -> Inventory:
    """The inventory as a struct; raises Invalid naming what is wrong."""
    check_json(dict(inventory), "inventory")
    try:
        found = msgspec.convert(dict(inventory), Inventory)
    except msgspec.ValidationError as error:
        raise Invalid.field("inventory", f"{error}.") from None
    for name in (*CAPACITY, "network_megabits_per_second"):
        if not 0 <= getattr(found, name) <= MAX_AMOUNT:
            raise Invalid.field(f"inventory.{name}", f"a whole number from 0 to {MAX_AMOUNT}.")
    indexes = [gpu.index for gpu in found.gpus]
    if len(indexes) > MAX_GPUS or len(set(indexes)) != len(indexes):
        raise Invalid.field("inventory.gpus", f"at most {MAX_GPUS} cards, each index once.")
    for position, gpu in enumerate(found.gpus):
        field = f"inventory.gpus[{position}]"
        if not 0 <= gpu.index < 32768 or not 0 <= gpu.memory_bytes <= MAX_AMOUNT:
            raise Invalid.field(field, "an index from 0 to 32767 and a memory that is not negative.")
        if not 0 < len(gpu.model) <= 100 or len(gpu.uuid) > 100:
            raise Invalid.field(field, "a model of 1 to 100 and a uuid of at most 100 characters.")
    return found


def _columns(found: Inventory) -> dict[str, Any]:
    return {
        **{name: getattr(found, name) for name in CAPACITY},
        "network_mbps": found.network_megabits_per_second,
        "runtimes": list(found.runtimes),
        "isolation": msgspec.to_builtins(found.isolation),
        "system": {**{name: getattr(found, name) for name in SYSTEM_FIELDS}, **checked_holdings(found.holdings)},
    }


def _capacity(node: Node, cards: Sequence[Gpu]) -> dict[str, Any]:
    return {
        **{name: getattr(node, name) for name in CAPACITY},
        "gpus": [f"{card.index}:{card.model}" for card in cards],
    }


def _set_gpus(node: Node, gpus: Sequence[GpuInventory]) -> list[Gpu]:
    """Make the node's cards those of the inventory; allocation is kept, and so is a card still allocated."""
    rows = [
        Gpu(node=node, index=gpu.index, uuid=gpu.uuid, model=gpu.model, memory_bytes=gpu.memory_bytes)
        for gpu in sorted(gpus, key=lambda gpu: gpu.index)
    ]
    if rows:
        Gpu.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["node", "index"],
            update_fields=["uuid", "model", "memory_bytes"],
        )
    Gpu.objects.filter(node=node, allocated_milli=0).exclude(index__in=[gpu.index for gpu in gpus]).delete()
    return list(Gpu.objects.filter(node=node).order_by("index"))


def _new_credential(node: Node) -> str:
    """Replace every credential of the node by a new one; returns it, this one time."""
    NodeCredential.objects.filter(node=node, revoked_at__isnull=True).update(revoked_at=timezone.now())
    credential = new_token("rma")
    NodeCredential.objects.create(node=node, digest=digest(credential))
    return credential


def _use_token(token: str) -> JoinToken:
    """Take the token's one use; raises Unauthenticated for one that is unknown, used or expired."""
    now = timezone.now()
    row = JoinToken.objects.select_related("cluster").filter(digest=digest(token)).first()
    usable = Q(used_at__isnull=True, expires_at__gt=now)
    if row is None or not JoinToken.objects.filter(usable, pk=row.pk).update(used_at=now):
        raise Unauthenticated(
            "The join token is unknown, used or expired: make a new one for the cluster.",
            code="join_token_invalid",
        )
    return row


@transaction.atomic
def join_node(*, token: str, name: str, inventory: Mapping[str, Any]) -> tuple[Node, str]:
    """Turn a one-time token into a node and its credential (shown this one time).

    A node of that name that is lost or silent joins again: same node, its older credentials revoked. Raises
    Unauthenticated (`join_token_invalid`), Invalid, or Conflict when such a node is connected; then the token
    is not used up.
    """
    checked_node_name(name)
    found = checked_inventory(inventory)
    row = _use_token(token)
    node = (
        Node.objects.select_for_update(of=("self",))
        .filter(cluster=row.cluster, name=name)
        .exclude(state=NodeState.REMOVED)
        .first()
    )
    again = node is not None
    if node is None:
        node = Node.objects.create(cluster=row.cluster, name=name, **_columns(found))
    else:
        _refuse_connected(node)
        for column, value in _columns(found).items():
            setattr(node, column, value)
        node.save(update_fields=list(_columns(found)))
    node.cluster = row.cluster
    cards = _set_gpus(node, found.gpus)
    credential = _new_credential(node)
    JoinToken.objects.filter(pk=row.pk).update(node=node)
    actor = Actor(label=f"agent:{name}", node_id=node.pk)
    verb = "node.rejoined" if again else "node.joined"
    facts = {"cluster": row.cluster.name, **_capacity(node, cards)}
    record(actor, node_fact(verb, node, **facts), on_behalf_of=row.created_by)
    return node, credential


def _refuse_connected(node: Node) -> None:
    quiet = timezone.now() - timedelta(seconds=settings.NODE_LOST_SECONDS)
    if node.state != NodeState.LOST and node.last_seen_at is not None and node.last_seen_at > quiet:
        raise Conflict(
            f"Node {node} is connected: stop its agent and wait {settings.NODE_LOST_SECONDS:.0f} s, or join "
            "under another name.",
            code="node_connected",
        )


# Agents tell the free space, which moves a little all the time; a smaller change is not one of capacity.
STORAGE_SLACK = 0.1


@transaction.atomic
def update_inventory(
    *, actor: Actor, node_id: int, connection: int, inventory: Mapping[str, Any], version: str
) -> Node:
    """Take over what a node's agent found; an event is recorded only when the capacity changed.

    Raises Replaced for another connection than the node's newest.
    """
    found = checked_inventory(inventory)
    node = policies.nodes.get(actor, "report", lock=True, pk=node_id)
    require_newest(node.pk, connection)
    before = _capacity(node, list(node.gpus.order_by("index")))
    values = {**_columns(found), "agent_version": version[:40]}
    if abs(values["storage_bytes"] - node.storage_bytes) <= node.storage_bytes * STORAGE_SLACK:
        values["storage_bytes"] = node.storage_bytes
    for column, value in values.items():
        setattr(node, column, value)
    node.last_seen_at = timezone.now()
    node.save(update_fields=[*values, "last_seen_at"])
    after = _capacity(node, _set_gpus(node, found.gpus))
    if before != after:
        record(actor, node_fact("node.inventory_changed", node, before=before, after=after))
    return node


@transaction.atomic
def rotate_credentials(*, actor: Actor, node_id: int) -> tuple[Node, str]:
    """Give the node a new credential and end the old ones at once; its agent must be told the new one."""
    node = policies.nodes.get(actor, "rotate_credentials", lock=True, pk=node_id)
    if node.state == NodeState.REMOVED:
        raise Conflict(f"Node {node} was removed: join it again.", code="stale_state")
    credential = _new_credential(node)
    record(actor, node_fact("node.credentials_rotated", node))
    return node, credential


@transaction.atomic
def revoke_credentials(*, actor: Actor, node_id: int) -> Node:
    """End the node's credentials at once: its agent stops its tasks and cannot come back without joining."""
    node = policies.nodes.get(actor, "revoke_credentials", lock=True, pk=node_id)
    now = timezone.now()
    if NodeCredential.objects.filter(node=node, revoked_at__isnull=True).update(revoked_at=now):
        record(actor, node_fact("node.credentials_revoked", node))
    return node
