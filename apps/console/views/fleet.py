"""Nodes and pools: lists, one node with its charts, and what operators and providers do with them."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.core.filters import apply_filters
from apps.events.queries import events_of
from apps.execution import policies as execution_policies
from apps.execution.queries import telemetry_history
from apps.fleet import commands, policies
from apps.fleet.filters import NodeFilter
from apps.fleet.models import Node
from apps.fleet.queries import list_clusters, list_contributions, list_nodes, list_pools, pool_members
from apps.fleet.states import NodeState
from apps.jobs.states import ATTEMPT_LIVE

from .. import figures, queries
from ..pages import given, known, numbered_page, page, show

EVENTS = 12
PLACEMENTS = 50
FIGURES: dict[str, Callable[[list[dict[str, Any]]], figures.Figure]] = {
    "cpu": figures.cpu,
    "memory": figures.memory,
    "network": figures.network,
    "gpus": figures.gpus,
}


@require_safe
@page
def nodes(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Nodes with live bars."""
    filtered = apply_filters(NodeFilter, given(request), list_nodes(actor))
    found = numbered_page(request, filtered, "cluster__name", "name", "pk")
    clusters = list(list_clusters(actor))
    context = {
        "crumbs": [{"label": "Nodes"}],
        "page": found,
        "rows": queries.with_telemetry(found.rows),
        "counts": queries.node_counts(actor),
        "clusters": clusters,
        "joinable": [
            cluster
            for cluster in clusters
            if cluster.kind == "agents" and policies.clusters.allows(actor, "join", cluster)
        ],
        "states": NodeState.choices,
        "telemetry_topics": queries.telemetry_topics(actor, clusters),
    }
    return show(request, "console/nodes/page.html", context, {"node-list": "console/nodes/_list.html"})


def _node(actor: Actor, node_id: int) -> Node:
    node = list_nodes(actor).filter(pk=node_id).first()
    if node is None:
        raise NotFound(f"There is no node {node_id} that you can see.")
    return node


@require_safe
@page
def node(request: HttpRequest, actor: Actor, node_id: int) -> HttpResponse:
    """One node: capacity, telemetry, what runs on it, its events, and what may be done with it."""
    found = _node(actor, node_id)
    placements = (
        execution_policies.placements.visible(actor)
        .filter(node=found)
        .select_related("attempt__job__tenant")
        .order_by("-pk")
    )
    live = placements.filter(state__in=sorted(ATTEMPT_LIVE))
    context = {
        "crumbs": [{"label": "Nodes", "url": reverse("console:nodes")}, {"label": found.name}],
        "node": found,
        "live": queries.with_telemetry([found])[0],
        "placements": live[:PLACEMENTS],
        "earlier": placements.exclude(state__in=sorted(ATTEMPT_LIVE))[:10],
        "events": events_of(actor, "node", found.pk)[:EVENTS],
        "may": {
            action: policies.nodes.allows(actor, action, found) for action in ("cordon", "uncordon", "drain", "remove")
        },
    }
    partials = {"node-head": "console/nodes/_head.html", "node-body": "console/nodes/_body.html"}
    return show(request, "console/nodes/detail.html", context, partials)


@require_safe
@page
def node_figure(request: HttpRequest, actor: Actor, node_id: int, name: str) -> HttpResponse:
    """A chart of the node's last minutes."""
    found = policies.nodes.get(actor, pk=node_id)
    answer = JsonResponse(FIGURES[known(name, FIGURES)](telemetry_history(found.pk)))
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@page
def node_action(request: HttpRequest, actor: Actor, node_id: int, action: str) -> HttpResponse:
    """Cordon, uncordon, drain or remove a node."""
    reason = request.POST.get("reason", "")[:500]
    if known(action, ("cordon", "uncordon", "drain", "remove")) == "uncordon":
        commands.uncordon_node(actor=actor, node_id=node_id, reason=reason)
    elif action == "cordon":
        commands.cordon_node(actor=actor, node_id=node_id, reason=reason)
    elif action == "drain":
        commands.drain_node(actor=actor, node_id=node_id, reason=reason)
    else:
        removed = commands.remove_node(actor=actor, node_id=node_id, reason=reason)
        messages.success(request, f"Node {removed.name} is removed; its credential no longer works.")
        return redirect("console:nodes")
    done = {
        "uncordon": "takes work again",
        "cordon": "takes no new work",
        "drain": "is draining: its work moves away",
    }
    found = policies.nodes.get(actor, pk=node_id)
    messages.success(request, f"Node {found.name} {done[action]}.")
    return redirect("console:node", node_id=node_id)


@require_POST
@page
def create_join_token(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a one-time join token and show, this one time, the command that uses it."""
    cluster = policies.clusters.get(actor, "join", name=request.POST.get("cluster", ""))
    _, token = commands.create_join_token(actor=actor, cluster=cluster)
    context = {
        "crumbs": [{"label": "Nodes", "url": reverse("console:nodes")}, {"label": "Join a node"}],
        "cluster": cluster,
        "token": token,
        "portal": request.build_absolute_uri("/").rstrip("/"),
    }
    answer = show(request, "console/nodes/join.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@require_safe
@page
def pools(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Pools with their flavors and what their nodes hold."""
    members = pool_members(timezone.now())
    visible = policies.nodes.visible(actor).filter(state=NodeState.READY)
    rows = []
    for pool in list_pools(actor):
        inside = members[pool.name]
        flavor_nodes = dict(inside.flavors)
        sums = visible.filter(pk__in=inside.nodes).aggregate(
            count=Count("pk"),
            cpu=Sum("cpu_millicores", default=0),
            cpu_used=Sum("allocated_cpu_millicores", default=0),
            memory=Sum("memory_bytes", default=0),
            memory_used=Sum("allocated_memory_bytes", default=0),
        )
        flavors = [{"flavor": flavor, "nodes": len(flavor_nodes.get(flavor.name, ()))} for flavor in pool.flavors.all()]
        rows.append({"pool": pool, "nodes": len(inside.nodes), "sums": sums, "flavors": flavors})
    context = {
        "crumbs": [{"label": "Pools"}],
        "pools": rows,
        "contributions": list_contributions(actor),
    }
    return show(request, "console/pools/page.html", context, {"pool-list": "console/pools/_list.html"})
