"""Slot pools: the list, the form of one, and who holds its slots and who waits for some."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, FieldError, Forbidden, Invalid
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from apps.workflows import commands, policies, slot_queries
from apps.workflows.models import SlotPool

from .. import queries
from ..context import chosen_tenant
from ..forms import Field, Form, Reader
from ..pages import numbered_page, page, show, text

PATHS = {"tenant": "tenant", "name": "name", "size": "size", "description": "description"}
CLAIMS = 50


@require_safe
@page
def slot_pools(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Slot pools of the person's tenants."""
    rows = queries.narrowed(slot_queries.list_slot_pools(actor), chosen_tenant(request, actor))
    words = text(request, "q")
    if words:
        rows = rows.filter(name__icontains=words)
    context = {
        "crumbs": [{"label": "Slot pools"}],
        "page": numbered_page(request, rows, "name", "pk"),
        "may_create": bool(_tenants(actor)),
    }
    return show(request, "console/slots/page.html", context, {"slot-pool-list": "console/slots/_list.html"})


@require_safe
@page
def slot_pool(request: HttpRequest, actor: Actor, slot_pool_id: int) -> HttpResponse:
    """One slot pool: how much of it is held, by whom, and who is in line."""
    found = slot_queries.slot_pool_of(actor, slot_pool_id)
    holders = list(slot_queries.claims_of(found, held=True)[:CLAIMS])
    line = numbered_page(
        request, slot_queries.claims_of(found, held=False), "-weight", "run_id", "pk", size=CLAIMS
    )
    context = {
        "crumbs": [_crumb(), {"label": found.name}],
        "pool": found,
        "holders": holders,
        "more_holders": found.holders - len(holders),  # type: ignore[attr-defined]
        "page": line,
        "may_edit": policies.slot_pools.allows(actor, "update", found),
    }
    return show(request, "console/slots/detail.html", context, {"slot-claims": "console/slots/_claims.html"})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def slot_pool_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a slot pool; refusals stand beside their fields."""
    tenants = _tenants(actor)
    if not tenants:
        raise Forbidden("Only admins of a tenant make slot pools for it.")
    form = _form()
    form.fields["tenant"] = Field("tenant", "Tenant", "select", choices=[(one.slug, one.name) for one in tenants])
    chosen = chosen_tenant(request, actor)
    form["tenant"].value = chosen.slug if chosen is not None else tenants[0].slug
    if request.method == "POST":
        form.fill(request.POST)
        try:
            tenant = next((one for one in tenants if one.slug == form["tenant"].value), None)
            if tenant is None:
                raise Invalid.field("tenant", "choose one of the tenants that you are an admin of.", "unknown")
            name = str(form["name"].value).strip()
            made = commands.create_slot_pool(actor=actor, tenant=tenant, name=name, **_data(request))
        except DomainError as error:
            form.refuse(error, PATHS)
        else:
            messages.success(request, f"There is a slot pool {made} now.")
            return redirect("console:slot-pool", slot_pool_id=made.pk)
    return _show_form(request, form, None)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def slot_pool_edit(request: HttpRequest, actor: Actor, slot_pool_id: int) -> HttpResponse:
    """Change the size or the description of a slot pool."""
    found = policies.slot_pools.get(actor, "update", pk=slot_pool_id)
    form = _form()
    form.fill({"size": str(found.size), "description": found.description})
    if request.method == "POST":
        form.fill(request.POST)
        try:
            commands.change_slot_pool(actor=actor, pool_id=slot_pool_id, **_data(request))
        except DomainError as error:
            form.refuse(error, PATHS)
        else:
            messages.success(request, f"Slot pool {found} is saved.")
            return redirect("console:slot-pool", slot_pool_id=slot_pool_id)
    return _show_form(request, form, found)


@require_POST
@page
def slot_pool_delete(request: HttpRequest, actor: Actor, slot_pool_id: int) -> HttpResponse:
    """Delete a slot pool that nobody uses."""
    found = policies.slot_pools.get(actor, pk=slot_pool_id)
    commands.delete_slot_pool(actor=actor, pool_id=slot_pool_id)
    messages.success(request, f"Slot pool {found} is deleted.")
    return redirect("console:slot-pools")


def _tenants(actor: Actor) -> list[Tenant]:
    """Those for which the actor may make slot pools."""
    rows = tenant_policies.tenants.visible(actor).order_by("name")
    return [tenant for tenant in rows if policies.slot_pools.allows(actor, "create", tenant)]


def _crumb() -> dict[str, str]:
    return {"label": "Slot pools", "url": reverse("console:slot-pools")}


def _form() -> Form:
    fields = (
        Field("name", "Name", mono=True, placeholder="warehouse", help="As tasks name it: slots: warehouse."),
        Field("size", "Slots", mono=True, placeholder="4", help="With 0 no task that takes its slots starts."),
        Field("description", "Description", optional=True, placeholder="Connections that the warehouse bears"),
    )
    return Form({field.name: field for field in fields})


def _data(request: HttpRequest) -> dict[str, Any]:
    """What was typed. Raises Invalid for a size that is no number."""
    errors: list[FieldError] = []
    read = Reader(request.POST, errors, PATHS)
    if not read.text("size"):
        read.fault("size", "Say how many slots there are.")
    size = read.integer("size", 0)
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return {"size": size, "description": read.text("description")}


def _show_form(request: HttpRequest, form: Form, found: SlotPool | None) -> HttpResponse:
    context = {
        "crumbs": [_crumb(), {"label": found.name if found else "New"}],
        "form": form,
        "pool": found,
    }
    status = 422 if request.method == "POST" else 200
    return show(request, "console/slots/edit.html", context, status=status)
