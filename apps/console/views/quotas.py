"""The quota tree, and the form of one of its nodes with what is used beside each limit."""

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError
from apps.fleet.queries import list_pools
from apps.quotas import commands, policies
from apps.quotas.models import QuotaNode
from apps.quotas.queries import limits_stamp, list_quotas, quota_rows
from apps.tenants import policies as tenant_policies
from apps.tenants.queries import list_tenants

from ..fleet_forms import REACH_WORDS
from ..pages import page, page_of, show, text
from ..quota_forms import NODE_PATHS, QuotaForm, node_form, quota_form, weight_of
from .budgets import budget_rows, budgets_of


@require_safe
@page
def quotas(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The quota tree: nominal, used and borrowed of every flavor and resource; and the budgets with what is left."""
    rows = [{"row": row, "may_edit": policies.quotas.allows(actor, "set_limits", row)} for row in quota_rows(actor)]
    reaches = list_pools(actor).prefetch_related(None).values_list("name", "priority_reach")
    budgets = page_of(request, budgets_of(actor))
    context = {
        "crumbs": [{"label": "Quotas"}],
        "rows": rows,
        "reaches": [(name, REACH_WORDS[reach]) for name, reach in reaches],
        "budgets": budget_rows(actor, budgets),
        "page": budgets,
        "may_budget": policies.budgets.allows(actor, "create", None),
        "edits": any(item["may_edit"] for item in rows),
        "may_create": policies.quotas.allows(actor, "create", None),
    }
    partials = {"quota-tree": "console/quotas/_tree.html", "quota-budgets": "console/quotas/_page_budgets.html"}
    return show(request, "console/quotas/page.html", context, partials)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def quota_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a cohort or a tenant's leaf in the tree; then its limits can be set."""
    policies.quotas.require(actor, "create", "")
    cohorts = list_quotas(actor).filter(tenant=None).order_by("name").values_list("name", flat=True)
    without = list_tenants(actor).filter(quota=None)
    form = node_form(list(cohorts), [(tenant.slug, tenant.name) for tenant in without])
    refused = False
    if request.method == "POST":
        form.fill(request.POST)
        try:
            parent, slug = form["parent"].value, form["tenant"].value
            made = commands.create_quota_node(
                actor=actor,
                name=form["name"].value.strip(),
                parent=policies.quotas.get(actor, name=parent) if parent else None,
                tenant=tenant_policies.tenants.get(actor, slug=slug) if slug else None,
                weight=weight_of(form),
            )
        except DomainError as error:
            form.refuse(error, NODE_PATHS)
            refused = True
        else:
            messages.success(request, f"{made.name} is in the tree. Give it limits, or nothing can be charged to it.")
            return redirect("console:quota", quota_id=made.pk)
    else:
        slug = text(request, "tenant")
        form["tenant"].value = form["name"].value = slug if slug in dict(form["tenant"].choices) else ""
    context = {
        "crumbs": [{"label": "Quotas", "url": reverse("console:quotas")}, {"label": "New quota"}],
        "form": form,
    }
    return show(request, "console/quotas/new.html", context, status=422 if refused else 200)


@require_POST
@page
def quota_delete(request: HttpRequest, actor: Actor, quota_id: int) -> HttpResponse:
    """Delete a node without children, use or history."""
    found = policies.quotas.get(actor, "delete", pk=quota_id)
    commands.delete_quota_node(actor=actor, node_id=quota_id)
    messages.success(request, f"{found.name} is taken out of the tree.")
    return redirect("console:quotas")


@require_http_methods(["GET", "HEAD", "POST"])
@page
def quota(request: HttpRequest, actor: Actor, quota_id: int) -> HttpResponse:
    """Change the weight and the limits of a cohort or tenant; refused values stay beside what is said of them."""
    node = policies.quotas.get(actor, "set_limits", pk=quota_id)
    rows = quota_rows(actor)
    row = next(row for row in rows if row.id == quota_id)
    form = quota_form(row, node.limits.all(), list_pools(actor))
    refused = False
    seen = limits_stamp(node)
    if request.method == "POST":
        form.fill(request.POST)
        asked = request.POST.get("seen", "")
        try:
            _save(actor, node, form, asked, row.rules or {})
        except DomainError as error:
            form.refuse(error, form.paths())
            refused = True
            # Who was told of another's change has seen it; any other refusal tells nothing of that.
            seen = seen if error.code == "changed_meanwhile" else asked
        else:
            messages.success(request, f"The quota of {node.name} is saved.")
            return redirect("console:quotas")
    context = {
        "crumbs": [{"label": "Quotas", "url": reverse("console:quotas")}, {"label": node.name}],
        "form": form,
        "row": row,
        "siblings": [other for other in rows if other.parent == row.parent and other.id != row.id],
        "children": [other for other in rows if other.parent == row.name],
        "seen": seen,
    }
    partials = {"quota-limits": "console/quotas/_limits.html"}
    return show(request, "console/quotas/edit.html", context, partials, status=422 if refused else 200)


@transaction.atomic
def _save(actor: Actor, node: QuotaNode, form: QuotaForm, seen: str, rules: dict[str, Any]) -> None:
    """All or nothing: the limits in one command, whatever else is changed each in its own."""
    limits, weight, highest, changed = form.limits(), weight_of(form), form.highest_priority, form.rules(rules)
    commands.set_limits(actor=actor, node_id=node.pk, limits=limits, seen=seen)
    if weight != node.weight:
        commands.set_weight(actor=actor, node_id=node.pk, weight=weight)
    if highest != node.highest_priority:
        commands.set_highest_priority(actor=actor, node_id=node.pk, highest_priority=highest)
    if changed:
        commands.set_rules(actor=actor, node_id=node.pk, rules=changed)
