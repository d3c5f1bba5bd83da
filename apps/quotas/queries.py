"""Reads of the quota tree: as the engine sees it, and as rows for people."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.crypto import digest
from engine import quota as engine

from . import policies
from .models import QuotaLimit, QuotaNode, QuotaUsage


@dataclass(frozen=True, slots=True)
class QuotaCell:
    """One (flavor, resource) at a node; amounts in millicores, bytes or thousandths of a card."""

    flavor: str
    resource: str
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None
    used: int
    borrowed: int
    potential: int
    available: int


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """One node of the tree with what it has and uses; `depth` 0 is a root."""

    id: int
    name: str
    parent: str | None
    tenant: str | None
    weight: float
    depth: int
    cells: list[QuotaCell]


def list_quotas(actor: Actor) -> QuerySet[QuotaNode]:
    """Nodes of the tree that the actor may see."""
    return policies.quotas.visible(actor).select_related("parent", "tenant")


def limits_on(flavors: Iterable[str]) -> int:
    """How many limits refer to these flavors."""
    return QuotaLimit.objects.filter(flavor__in=list(flavors)).count()


def limits_stamp(node: QuotaNode) -> str:
    """A short digest of a node's limits; another one means that somebody has changed them."""
    rows = node.limits.order_by("flavor", "resource").values_list(
        "flavor", "resource", "nominal", "borrowing_limit", "lending_limit"
    )
    return digest(json.dumps(list(rows)))[:16]


def load_nodes() -> list[engine.Node]:
    """All nodes with their limits, as the engine's; two queries."""
    limits: dict[int, dict[engine.FlavorResource, engine.Limit]] = defaultdict(dict)
    for node_id, flavor, resource, nominal, borrowing, lending in QuotaLimit.objects.order_by().values_list(
        "node_id", "flavor", "resource", "nominal", "borrowing_limit", "lending_limit"
    ):
        limits[node_id][flavor, resource] = engine.Limit(nominal, borrowing, lending)
    return [
        engine.Node(pk, parent, name, limits.get(pk, {}), weight)
        for pk, parent, name, weight in QuotaNode.objects.order_by("pk").values_list(
            "pk", "parent_id", "name", "weight"
        )
    ]


def load_tree(nodes: Iterable[engine.Node] | None = None) -> engine.QuotaTree:
    """The engine's tree with the present usage; `nodes` where they have been read already."""
    usage: dict[int, dict[engine.FlavorResource, int]] = defaultdict(dict)
    for node_id, flavor, resource, used in (
        QuotaUsage.objects.order_by().filter(used__gt=0).values_list("node_id", "flavor", "resource", "used")
    ):
        usage[node_id][flavor, resource] = used
    return engine.QuotaTree(load_nodes() if nodes is None else nodes, usage)


def rows_of(nodes: Iterable[QuotaNode], tree: engine.QuotaTree | None = None) -> list[QuotaRow]:
    """The nodes as rows, in the given order. A cell is there for what is covered or in use."""
    tree = tree or load_tree()
    rows = []
    for node in nodes:
        frs = [fr for fr in tree.frs() if tree.covers(node.pk, fr) or tree.usage(node.pk, fr)]
        rows.append(
            QuotaRow(
                id=node.pk,
                name=node.name,
                parent=node.parent.name if node.parent else None,
                tenant=node.tenant.slug if node.tenant else None,
                weight=node.weight,
                depth=_depth(tree, node.pk),
                cells=[_cell(tree, node.pk, fr) for fr in frs],
            )
        )
    return rows


def quota_rows(actor: Actor) -> list[QuotaRow]:
    """Every node that the actor may see, each parent before its children."""
    tree = load_tree()
    nodes = {node.pk: node for node in list_quotas(actor).order_by("name")}
    ordered: list[QuotaNode] = []

    def walk(pk: int) -> None:
        if pk in nodes:
            ordered.append(nodes[pk])
        for child in sorted(tree.children(pk), key=lambda child: tree.nodes[child].name):
            walk(child)

    for root in sorted(
        (node for node in tree.nodes.values() if node.parent is None), key=lambda node: node.name
    ):
        walk(root.id)
    return rows_of(ordered, tree)


def _depth(tree: engine.QuotaTree, node: int) -> int:
    depth, parent = 0, tree.nodes[node].parent
    while parent is not None:
        depth, parent = depth + 1, tree.nodes[parent].parent
    return depth


def _cell(tree: engine.QuotaTree, node: int, fr: engine.FlavorResource) -> QuotaCell:
    limit = tree.nodes[node].limits.get(fr, engine.Limit(0))
    return QuotaCell(
        flavor=fr[0],
        resource=fr[1],
        nominal=limit.nominal,
        borrowing_limit=limit.borrowing_limit,
        lending_limit=limit.lending_limit,
        used=tree.usage(node, fr),
        borrowed=tree.borrowing(node, fr),
        potential=tree.potential(node, fr),
        available=tree.available(node, fr),
    )
