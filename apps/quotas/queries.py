"""Reads of the quota tree: as the engine sees it, and as rows for people."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isinf
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.crypto import digest
from apps.core.rows import fetch
from engine import quota as engine
from engine.queues import Fungibility, Policy, Preference, QueueRules, Strategy

from . import policies
from .models import QuotaLimit, QuotaNode


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
    # Past use, decayed with the half-life: what shares count besides the present.
    average: int


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """One node of the tree with what it has and uses; `depth` 0 is a root.

    `share` is its fair share in thousandths, with past use (null: infinite, it borrows with weight 0).
    `highest_priority` is its own bound of what jobs may name (null: that of the node above holds).
    """

    id: int
    name: str
    parent: str | None
    tenant: str | None
    weight: float
    depth: int
    cells: list[QuotaCell]
    share: float | None
    rules: dict[str, Any] | None
    highest_priority: int | None = None


RULES = (
    "strategy", "within_queue", "reclaim", "borrow", "borrow_threshold", "when_can_borrow", "when_can_preempt",
    "preference", "minimum_run_seconds",
)  # fmt: skip


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


def load_rules() -> tuple[dict[int, QueueRules], dict[int, int], dict[int, int]]:
    """The rules of every leaf, how many seconds its jobs run before they may be evicted, and the highest priority that
    they may name, where there is one."""
    rules, minimum_run, highest = {}, {}, {}
    nodes = {node.pk: node for node in QuotaNode.objects.all()}
    for node in nodes.values():
        if node.tenant_id is not None:
            rules[node.pk] = rules_of(node)
            minimum_run[node.pk] = node.minimum_run_seconds
            bounds = (step.highest_priority for step in _way_up(nodes, node))
            if (bound := next((bound for bound in bounds if bound is not None), None)) is not None:
                highest[node.pk] = bound
    return rules, minimum_run, highest


def _way_up(nodes: Mapping[int, QuotaNode], node: QuotaNode | None) -> Iterator[QuotaNode]:
    while node is not None:
        yield node
        node = nodes.get(node.parent_id) if node.parent_id is not None else None


def rules_of(node: QuotaNode) -> QueueRules:
    """One leaf's rules as the engine's."""
    return QueueRules(
        strategy=Strategy(node.strategy),
        within_queue=Policy(node.within_queue),
        reclaim=Policy(node.reclaim),
        borrow=Policy(node.borrow),
        borrow_threshold=node.borrow_threshold,
        when_can_borrow=Fungibility(node.when_can_borrow),
        when_can_preempt=Fungibility(node.when_can_preempt),
        preference=Preference(node.preference),
    )


def load_tree(nodes: Iterable[engine.Node] | None = None) -> engine.QuotaTree:
    """The engine's tree with the present and the decayed usage; `nodes` where they have been read already."""
    usage: dict[int, dict[engine.FlavorResource, int]] = defaultdict(dict)
    past: dict[int, dict[engine.FlavorResource, int]] = defaultdict(dict)
    for node_id, flavor, resource, used, average in fetch(
        "SELECT node_id, flavor, resource, used, average FROM quotas_quotausage WHERE used > 0 OR average >= 1"
    ):
        if used:
            usage[node_id][flavor, resource] = used
        past[node_id][flavor, resource] = int(average)
    return engine.QuotaTree(
        load_nodes() if nodes is None else nodes, usage, past=past, past_weight=settings.QUOTA_PAST_WEIGHT
    )


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
                share=None if isinf(weighted := tree.share(node.pk).weighted) else weighted,
                rules=None if node.tenant is None else {name: getattr(node, name) for name in RULES},
                highest_priority=node.highest_priority,
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
        average=tree.past(node, fr),
    )
