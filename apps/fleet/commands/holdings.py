"""What lies ready on a node: its agent tells it when it connects, and whenever it has changed."""

from typing import Any

from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import record
from rmctl.agent.protocol import Holdings
from rmctl.names import DATASET

from .. import policies
from ..models import Node
from .connections import require_newest
from .nodes import node_fact

MAX_IMAGES, MAX_IMAGE, MAX_DATASETS, MAX_BYTES = 1000, 600, 100, 2**62
# As many names of what came or went as an event has.
NAMED = 20


def checked_holdings(found: Holdings) -> dict[str, Any]:
    """As they are kept with the node; raises Invalid naming what is wrong."""
    if len(found.images) > MAX_IMAGES or any(not 0 < len(name) <= MAX_IMAGE for name in found.images):
        raise Invalid.field("holdings.images", f"at most {MAX_IMAGES} names of at most {MAX_IMAGE} characters.")
    if len(found.datasets) > MAX_DATASETS:
        raise Invalid.field("holdings.datasets", f"at most {MAX_DATASETS} datasets.")
    for name, size in found.datasets.items():
        if not DATASET.fullmatch(name) or not 0 <= size <= MAX_BYTES:
            raise Invalid.field("holdings.datasets", f"{name[:63]!r} is not the name of a dataset, or its size is not.")
    return {"images": sorted(set(found.images)), "datasets": dict(found.datasets)}


@transaction.atomic
def update_holdings(*, actor: Actor, node_id: int, connection: int, holdings: Holdings) -> Node:
    """Take over what lies ready on a node. Raises Replaced for another connection than the node's newest."""
    found = checked_holdings(holdings)
    node = policies.nodes.get(actor, "report", lock=True, pk=node_id)
    require_newest(node.pk, connection)
    before = {name: node.system.get(name) for name in found}
    if before != found:
        node.system = {**node.system, **found}
        node.save(update_fields=["system"])
        facts: dict[str, Any] = {}
        for name in found:
            was, now = set(before[name] or ()), set(found[name])
            facts[name] = {"came": sorted(now - was)[:NAMED], "went": sorted(was - now)[:NAMED]}
        record(actor, node_fact("node.holdings_changed", node, **facts))
    return node
