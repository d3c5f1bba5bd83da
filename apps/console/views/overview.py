"""The overview, the choice of tenant, and the palette that jumps anywhere."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.pagination import scanned
from apps.events.queries import list_events
from apps.fleet import policies as fleet_policies
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from apps.workflows import policies as workflow_policies

from .. import queries
from ..context import NAVIGATION, TENANT_COOKIE, chosen_tenant
from ..pages import back, page, show, text

RECENT = 8
FOUND = 6
YEAR = 365 * 24 * 3600


@require_safe
@page
def overview(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Key figures, the fleet map, recent runs and recent events."""
    tenant = chosen_tenant(request, actor)
    context = {
        "crumbs": [{"label": "Overview"}],
        "portal_url": settings.PORTAL_URL,
        **_figures(actor, tenant),
    }
    target = request.htmx.target if request.htmx else None  # type: ignore[attr-defined]
    if target is None:
        context["telemetry_topics"] = queries.telemetry_topics(actor, fleet_policies.clusters.visible(actor))
    if target in (None, "overview-fleet"):
        context["groups"] = groups = queries.fleet_map(actor)
        context["node_total"] = sum(len(group.nodes) for group in groups)
        context["as_cards"] = context["node_total"] <= queries.CARDS_MAX
    if target in (None, "overview-recent"):
        context["runs"] = queries.recent_runs(actor, tenant)[:RECENT]
        context["events"] = queries.narrowed_events(list_events(actor), tenant).order_by("-id")[:RECENT]
    partials = {
        "overview-figures": "console/overview/_figures.html",
        "overview-fleet": "console/overview/_fleet.html",
        "overview-recent": "console/overview/_recent.html",
    }
    return show(request, "console/overview/page.html", context, partials)


def _figures(actor: Actor, tenant: Tenant | None) -> dict[str, Any]:
    nodes = queries.node_counts(actor)
    jobs = queries.job_counts(actor, tenant)
    rate, ended = queries.success_rate(actor, tenant)
    return {
        "nodes": nodes,
        "node_count": sum(nodes.values()),
        "jobs": jobs,
        "reasons": queries.pending_reasons(actor, tenant) if jobs.get("pending") else [],
        "use": queries.fleet_use(actor) if nodes else [],
        "rate": rate,
        "ended": ended,
        "belongs": fleet_policies.has_any_role(actor),
        "anything_ran": bool(jobs or ended) or queries.visible_jobs(actor, tenant).exists(),
    }


@require_POST
@page
def switch_tenant(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Narrow every list to one tenant, or (empty) to none; kept in a cookie that grants nothing."""
    slug = request.POST.get("tenant", "")
    answer = back(request)
    if slug:
        tenant = tenant_policies.tenants.get(actor, slug=slug)
        answer.set_cookie(TENANT_COOKIE, tenant.slug, max_age=YEAR, samesite="Lax", httponly=True)
    else:
        answer.delete_cookie(TENANT_COOKIE, samesite="Lax")
    return answer


@require_safe
@page
def palette(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Pages, nodes, workflows, runs and jobs that the words name."""
    words = text(request, "q")
    lowered = words.lower()
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    pages = [
        {"label": label, "icon": icon, "url": reverse(f"console:{name}"), "note": title}
        for title, items in NAVIGATION
        for label, icon, name, _ in items
        if lowered in label.lower()
    ]
    actions = [("Submit a job", "plus", "job-submit"), ("API tokens", "key-round", "tokens")]
    pages += [
        {"label": label, "icon": icon, "url": reverse(f"console:{name}"), "note": ""}
        for label, icon, name in actions
        if lowered in label.lower()
    ]
    groups.append(("Go to", pages))
    if words:
        tenant = chosen_tenant(request, actor)
        groups += _found(actor, tenant, words)
    context = {"groups": [(title, items) for title, items in groups if items], "words": words}
    return show(request, "console/overview/_palette.html", context)


def _found(actor: Actor, tenant: Tenant | None, words: str) -> list[tuple[str, list[dict[str, Any]]]]:
    nodes = fleet_policies.nodes.visible(actor).filter(name__icontains=words).exclude(state="removed")
    workflows = queries.narrowed(workflow_policies.workflows.visible(actor), tenant).filter(name__icontains=words)
    jobs, scans = queries.search_jobs(queries.visible_jobs(actor, tenant), words)
    if scans:
        jobs, _ = scanned(jobs, None, descending=True)
    return [
        (
            "Workflows",
            [
                {"label": item.name, "icon": "workflow", "url": reverse("console:workflow", args=[item.pk])}
                for item in workflows.order_by("name")[:FOUND]
            ],
        ),
        (
            "Jobs",
            [
                {
                    "label": item.name,
                    "icon": "terminal",
                    "url": reverse("console:job", args=[item.pk]),
                    "note": f"#{item.pk} · {item.state}",
                }
                for item in jobs.order_by("-pk")[:FOUND]
            ],
        ),
        (
            "Nodes",
            [
                {
                    "label": item.name,
                    "icon": "server",
                    "url": reverse("console:node", args=[item.pk]),
                    "note": item.state,
                }
                for item in nodes.order_by("name")[:FOUND]
            ],
        ),
    ]
