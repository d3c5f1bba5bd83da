"""What a change of the fleet would do, worked out before it is saved: which nodes a query takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Sum
from django.utils import timezone

from apps.core.actors import Actor
from apps.fleet import policies
from apps.fleet.membership import NodeRow, matches, members
from apps.fleet.models import Flavor, Gpu, Node, Pool
from apps.fleet.queries import list_clusters, node_rows
from apps.fleet.validators import checked_query

from .fleet_forms import Known

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Preview:
    """The nodes that a query takes, and which of them come or go compared with what is saved."""

    total: int
    shown: list[Node]
    joins: list[str]
    leaves: list[str]
    joining: int
    leaving: int
    cpu_millicores: int
    memory_bytes: int
    cards: int
    # Nodes of the pool that flavors before this one take away from it.
    earlier: int = 0

    @property
    def rest(self) -> int:
        """How many nodes are not shown by name."""
        return self.total - len(self.shown)


def known(actor: Actor) -> Known:
    """What the actor's fleet has that queries can name."""
    clusters = list(list_clusters(actor).order_by("name"))
    nodes = policies.nodes.visible(actor).order_by().values("pk")
    models = Gpu.objects.filter(node__in=nodes).order_by("model").values_list("model", flat=True).distinct()
    return Known(
        clusters=[cluster.name for cluster in clusters],
        domains=sorted({cluster.domain.slug for cluster in clusters}),
        regions=sorted({cluster.region for cluster in clusters if cluster.region}),
        gpu_models=list(models),
    )


def of_pool(actor: Actor, query: Mapping[str, Any], saved: Pool | None) -> Preview:
    """What a pool with this query would hold. Raises Invalid for a query that makes no sense."""
    checked = checked_query("query", query)
    rows = node_rows(timezone.now())
    before = _taken(saved.query, rows) if saved is not None else None
    return _preview(actor, _taken(checked, rows), before)


def of_flavor(
    actor: Actor, pool: Pool, match: Mapping[str, Any], position: int, saved: Flavor | None
) -> Preview:
    """What a flavor of the pool would take from those after it. Raises Invalid for a match that makes no sense."""
    checked = checked_query("match", match, flavor=True)
    rows = node_rows(timezone.now())
    others = [flavor for flavor in pool.flavors.all() if saved is None or flavor.pk != saved.pk]
    # A flavor of the same position that is older is asked first, as `Flavor` orders them.
    place = (position, saved.pk if saved is not None else float("inf"))
    first = [item for item in others if (item.position, item.pk) < place]
    found = members(pool.query, [*((item.name, item.match) for item in first), ("", checked)], rows)
    before = None
    if saved is not None:
        now = members(pool.query, [(item.name, item.match) for item in pool.flavors.all()], rows)
        before = set(dict(now.flavors)[saved.name])
    earlier = sum(len(nodes) for name, nodes in found.flavors if name)
    return _preview(actor, set(dict(found.flavors)[""]), before, earlier)


def _taken(query: Mapping[str, Any], rows: list[NodeRow]) -> set[int]:
    return {row.id for row in rows if matches(query, row)}


def _preview(actor: Actor, wanted: set[int], before: set[int] | None, earlier: int = 0) -> Preview:
    visible = policies.nodes.visible(actor)
    taken = visible.filter(pk__in=wanted)
    sums = taken.aggregate(cpu=Sum("cpu_millicores", default=0), memory=Sum("memory_bytes", default=0))
    cards = Gpu.objects.filter(node__in=wanted).aggregate(count=Count("pk"))["count"]

    def names(ids: set[int]) -> list[str]:
        return list(visible.filter(pk__in=ids).order_by("name").values_list("name", flat=True)[:SHOWN]) if ids else []

    joins = wanted - before if before is not None else set()
    leaves = before - wanted if before is not None else set()
    return Preview(
        total=len(wanted),
        shown=list(taken.select_related("cluster").order_by("name")[:SHOWN]),
        joins=names(joins),
        leaves=names(leaves),
        joining=len(joins),
        leaving=len(leaves),
        cpu_millicores=sums["cpu"],
        memory_bytes=sums["memory"],
        cards=cards,
        earlier=earlier,
    )
