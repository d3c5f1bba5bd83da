"""Nodes: the list, one node with its charts, and what operators and providers do with it."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, NotFound
from apps.core.filters import apply_filters
from apps.events.queries import events_of
from apps.execution import policies as execution_policies
from apps.fleet import commands, policies
from apps.fleet.filters import NodeFilter
from apps.fleet.models import Node
from apps.fleet.queries import list_clusters, list_nodes
from apps.fleet.states import NodeState
from apps.fleet.telemetry import telemetry_history
from apps.jobs.states import ATTEMPT_LIVE

from .. import figures, fleet_forms, queries
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
            action: policies.nodes.allows(actor, action, found)
            for action in ("cordon", "uncordon", "drain", "remove", "label")
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


@require_http_methods(["GET", "HEAD", "POST"])
@page
def node_labels(request: HttpRequest, actor: Actor, node_id: int) -> HttpResponse:
    """Change the labels and taints of a node."""
    found = policies.nodes.get(actor, "label", pk=node_id)
    form = fleet_forms.node_form(found)
    refused = False
    if request.method == "POST":
        form.fill(request.POST)
        try:
            commands.set_labels(actor=actor, node_id=node_id, **fleet_forms.node_data(request.POST))
        except DomainError as error:
            form.refuse(error, fleet_forms.NODE_PATHS)
            refused = True
        else:
            messages.success(request, f"Labels and taints of {found.name} are saved.")
            return redirect("console:node", node_id=node_id)
    node_url = reverse("console:node", args=[node_id])
    context = {
        "crumbs": [
            {"label": "Nodes", "url": reverse("console:nodes")},
            {"label": found.name, "url": node_url},
            {"label": "Labels and taints"},
        ],
        "form": form,
        "node": found,
    }
    return show(request, "console/nodes/labels.html", context, status=422 if refused else 200)


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
