"""Contributions: the terms under which a domain lends a cluster, and their forms."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Forbidden
from apps.fleet import commands, policies
from apps.fleet.membership import Terms
from apps.fleet.models import Contribution
from apps.fleet.queries import consumers_named, list_clusters, list_contributions
from apps.fleet.windows import spans, weekly
from engine.amounts import amount_text

from .. import fleet_forms, queries
from ..forms import Form
from ..pages import page, show


@require_safe
@page
def contributions(request: HttpRequest, actor: Actor) -> HttpResponse:
    """What is lent, to whom, until when and at what price."""
    now = timezone.now()
    found = list(list_contributions(actor).order_by("cluster__name", "pk"))
    sums = queries.cluster_sums(actor, {row.cluster_id for row in found})
    rows = [
        {
            "terms": row,
            "state": _state(row, now),
            "lent": sums.get(row.cluster_id),
            "caps": _caps(row),
            "windows": [fleet_forms.window_text(window) for window in row.windows],
            "may_edit": policies.contributions.allows(actor, "update", row),
        }
        for row in found
    ]
    context = {
        "crumbs": [{"label": "Contributions"}],
        "rows": rows,
        "may_create": bool(_lendable(actor)),
        "provides": actor.operator or actor.auditor or bool(actor.domain_roles),
    }
    partials = {"contribution-list": "console/contributions/_list.html"}
    return show(request, "console/contributions/page.html", context, partials)


def _state(row: Contribution, now: datetime) -> tuple[str, str]:
    """A state's colour and what is said of it."""
    if Terms(starts_at=row.starts_at, ends_at=row.ends_at).in_force(now):
        return ("ready", "In force") if _open(row, now) else ("queued", "Closed now")
    return ("queued", "Not yet") if row.starts_at is not None and row.starts_at > now else ("cancelled", "Over")


def _caps(row: Contribution) -> str:
    """What others may hold, in words; empty where there is no limit."""
    limits = (("cpu", row.cap_cpu_millicores), ("memory", row.cap_memory_bytes), ("gpu", row.cap_gpu_milli))
    return ", ".join(amount_text(name, limit) for name, limit in limits if limit is not None)


def _open(row: Contribution, now: datetime) -> bool:
    """Whether a window is open; without windows there is always one."""
    if not row.windows:
        return True
    found = spans(weekly(row.windows), row.timezone, now.astimezone(UTC).date())
    return any(span.start <= now.timestamp() < span.end for span in found)


def _lendable(actor: Actor) -> list[tuple[str, str]]:
    """Clusters that the actor may lend, as choices."""
    clusters = list_clusters(actor).order_by("name")
    return [
        (cluster.name, f"{cluster.name} of {cluster.domain.slug}")
        for cluster in clusters
        if policies.clusters.allows(actor, "lend", cluster)
    ]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def contribution_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Lend a cluster."""
    clusters = _lendable(actor)
    if not clusters:
        raise Forbidden("You govern no cluster that could be lent: ask a provider of its domain.")
    form = fleet_forms.terms_form(clusters)
    if request.method == "POST":
        form.fill(request.POST)
        try:
            cluster = policies.clusters.get(actor, "lend", name=form["cluster"].value)
            made = commands.create_contribution(actor=actor, cluster=cluster, **_terms(request))
        except DomainError as error:
            form.refuse(error, fleet_forms.TERMS_PATHS)
        else:
            messages.success(request, f"Cluster {made.cluster.name} is lent under these terms.")
            return redirect("console:contributions")
    elif request.GET.get("cluster", "") in dict(clusters):
        form["cluster"].value = request.GET["cluster"]
    return _show(request, form, None)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def contribution(request: HttpRequest, actor: Actor, contribution_id: int) -> HttpResponse:
    """Change the terms under which a cluster is lent."""
    found = policies.contributions.get(actor, "update", pk=contribution_id)
    form = fleet_forms.terms_form([(found.cluster.name, found.cluster.name)], found)
    if request.method == "POST":
        form.fill(request.POST)
        form["cluster"].value = found.cluster.name
        try:
            commands.update_contribution(actor=actor, contribution_id=contribution_id, **_terms(request))
        except DomainError as error:
            form.refuse(error, fleet_forms.TERMS_PATHS)
        else:
            messages.success(request, f"The terms of {found.cluster.name} are saved; what runs goes on.")
            return redirect("console:contributions")
    return _show(request, form, found)


def _terms(request: HttpRequest) -> dict[str, Any]:
    terms = fleet_forms.terms_data(request.POST)
    return {**terms, "consumers": consumers_named(terms["consumers"])}


def _show(request: HttpRequest, form: Form, found: Contribution | None) -> HttpResponse:
    crumb = {"label": "Contributions", "url": reverse("console:contributions")}
    context = {
        "crumbs": [crumb, {"label": found.cluster.name if found else "Lend a cluster"}],
        "form": form,
        "terms": found,
    }
    status = 422 if request.method == "POST" else 200
    return show(request, "console/contributions/edit.html", context, status=status)


@require_POST
@page
def contribution_withdraw(request: HttpRequest, actor: Actor, contribution_id: int) -> HttpResponse:
    """End the lending; what runs goes on."""
    found = policies.contributions.get(actor, "delete", pk=contribution_id)
    commands.delete_contribution(actor=actor, contribution_id=contribution_id)
    messages.success(request, f"Cluster {found.cluster.name} is no longer lent under these terms.")
    return redirect("console:contributions")
