"""Pools and flavors: the list, and the forms that show which nodes a query takes while it is typed."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.fleet import commands, policies
from apps.fleet.models import Flavor, Pool
from apps.fleet.queries import list_flavors, list_pools, pool_members
from apps.fleet.states import NodeState
from apps.quotas.queries import limits_on

from .. import fleet_forms, previews
from ..forms import Form
from ..pages import number, page, show


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
        flavors = [
            {"flavor": flavor, "nodes": len(flavor_nodes.get(flavor.name, ()))} for flavor in pool.flavors.all()
        ]
        may_edit = policies.pools.allows(actor, "update", pool)
        rows.append(
            {"pool": pool, "nodes": len(inside.nodes), "sums": sums, "flavors": flavors, "may_edit": may_edit}
            | {"reach": fleet_forms.REACH_WORDS[pool.priority_reach]}
        )
    context = {
        "crumbs": [{"label": "Pools"}],
        "pools": rows,
        "may_create": policies.pools.allows(actor, "create", None),
    }
    return show(request, "console/pools/page.html", context, {"pool-list": "console/pools/_list.html"})


def _crumbs(*more: dict[str, str]) -> list[dict[str, str]]:
    return [{"label": "Pools", "url": reverse("console:pools")}, *more]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def pool_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a pool; its flavors come after."""
    policies.pools.require(actor, "create", "")
    form = fleet_forms.pool_form(previews.known(actor))
    if request.method == "POST":
        form.fill(request.POST)
        try:
            pool = commands.create_pool(
                actor=actor,
                name=form["name"].value.strip(),
                description=form["description"].value.strip(),
                query=fleet_forms.pool_query(request.POST),
                backfill=form["backfill"].value,
                priority_reach=form["priority_reach"].value,
            )
        except DomainError as error:
            form.refuse(error, fleet_forms.POOL_PATHS)
        else:
            messages.success(request, f"Pool {pool.name} is made. Give it a flavor, so that jobs can be placed.")
            return redirect("console:pool", pool_id=pool.pk)
    return _show_pool(request, actor, form, None)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def pool(request: HttpRequest, actor: Actor, pool_id: int) -> HttpResponse:
    """Change what a pool selects, and reach its flavors."""
    found = policies.pools.get(actor, "update", pk=pool_id)
    form = fleet_forms.pool_form(previews.known(actor), found)
    if request.method == "POST":
        form.fill(request.POST)
        form["name"].value = found.name
        try:
            commands.update_pool(
                actor=actor,
                pool_id=pool_id,
                description=form["description"].value.strip(),
                query=fleet_forms.pool_query(request.POST),
                backfill=form["backfill"].value,
                priority_reach=form["priority_reach"].value,
            )
        except DomainError as error:
            form.refuse(error, fleet_forms.POOL_PATHS)
        else:
            messages.success(request, f"Pool {found.name} is saved.")
            return redirect("console:pools")
    return _show_pool(request, actor, form, found)


def _show_pool(request: HttpRequest, actor: Actor, form: Form, found: Pool | None) -> HttpResponse:
    refused = request.method == "POST"

    def preview() -> previews.Preview:
        query = found.query if found else {}
        return previews.of_pool(actor, fleet_forms.pool_query(request.POST) if refused else query, found)

    flavors = list(found.flavors.all()) if found else []
    context = {
        "crumbs": _crumbs({"label": found.name if found else "New pool"}),
        "form": form,
        "pool": found,
        "flavors": flavors,
        "limits": limits_on([flavor.name for flavor in flavors]),
        **_previewed(preview),
    }
    return show(request, "console/pools/edit.html", context, status=422 if refused else 200)


@require_safe
@page
def pool_preview(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Which nodes the query that is being typed would take; of a pool that is being changed, `?pool=ID`."""
    saved_id = number(request, "pool")
    if saved_id is None:
        policies.pools.require(actor, "create", "")
    saved = policies.pools.get(actor, "update", pk=saved_id) if saved_id is not None else None
    found = _previewed(lambda: previews.of_pool(actor, fleet_forms.pool_query(request.GET), saved))
    return _fragment(request, found)


def _previewed(preview: Callable[[], previews.Preview]) -> dict[str, Any]:
    """The preview, or what is wrong with the query; the form says it beside the field once it is sent."""
    try:
        return {"preview": preview(), "preview_errors": []}
    except Invalid as error:
        return {"preview": None, "preview_errors": error.errors}


def _fragment(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    answer = show(request, "console/pools/_preview.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@page
def pool_delete(request: HttpRequest, actor: Actor, pool_id: int) -> HttpResponse:
    """Delete a pool with its flavors."""
    found = policies.pools.get(actor, "delete", pk=pool_id)
    commands.delete_pool(actor=actor, pool_id=pool_id)
    messages.success(request, f"Pool {found.name} is deleted.")
    return redirect("console:pools")


@require_http_methods(["GET", "HEAD", "POST"])
@page
def flavor_new(request: HttpRequest, actor: Actor, pool_id: int) -> HttpResponse:
    """Make a flavor in a pool."""
    policies.flavors.require(actor, "create", "")
    inside = policies.pools.get(actor, pk=pool_id)
    form = fleet_forms.flavor_form(previews.known(actor))
    if request.method == "POST":
        form.fill(request.POST)
        try:
            name, data = form["name"].value.strip(), fleet_forms.flavor_data(request.POST)
            made = commands.create_flavor(actor=actor, pool=inside, name=name, **data)
        except DomainError as error:
            form.refuse(error, fleet_forms.FLAVOR_PATHS)
        else:
            messages.success(request, f"Flavor {made.name} is made. Quotas can refer to it now.")
            return redirect("console:pool", pool_id=pool_id)
    return _show_flavor(request, actor, form, inside, None)


def _flavor(actor: Actor, flavor_id: int, action: str) -> Flavor:
    policies.flavors.get(actor, action, pk=flavor_id)
    return list_flavors(actor).get(pk=flavor_id)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def flavor(request: HttpRequest, actor: Actor, flavor_id: int) -> HttpResponse:
    """Change what a flavor takes and when it is asked."""
    found = _flavor(actor, flavor_id, "update")
    form = fleet_forms.flavor_form(previews.known(actor), found)
    if request.method == "POST":
        form.fill(request.POST)
        form["name"].value = found.name
        try:
            commands.update_flavor(actor=actor, flavor_id=flavor_id, **fleet_forms.flavor_data(request.POST))
        except DomainError as error:
            form.refuse(error, fleet_forms.FLAVOR_PATHS)
        else:
            messages.success(request, f"Flavor {found.name} is saved.")
            return redirect("console:pool", pool_id=found.pool_id)
    return _show_flavor(request, actor, form, found.pool, found)


def _show_flavor(
    request: HttpRequest, actor: Actor, form: Form, inside: Pool, found: Flavor | None
) -> HttpResponse:
    refused = request.method == "POST"

    def preview() -> previews.Preview:
        if refused:
            data = fleet_forms.flavor_data(request.POST)
        else:
            data = {"match": found.match, "position": found.position} if found else {"match": {}, "position": 0}
        return previews.of_flavor(actor, inside, saved=found, **data)

    pool_crumb = {"label": inside.name, "url": reverse("console:pool", args=[inside.pk])}
    context = {
        "crumbs": _crumbs(pool_crumb, {"label": found.name if found else "New flavor"}),
        "form": form,
        "pool": inside,
        "flavor": found,
        "limits": limits_on([found.name]) if found else 0,
        **_previewed(preview),
    }
    return show(request, "console/pools/flavor.html", context, status=422 if refused else 200)


@require_safe
@page
def flavor_preview(request: HttpRequest, actor: Actor, pool_id: int) -> HttpResponse:
    """Which nodes of the pool the flavor that is being typed would take; `?flavor=ID` of one that is changed."""
    policies.flavors.require(actor, "create", "")
    inside = policies.pools.get(actor, pk=pool_id)
    saved_id = number(request, "flavor")
    saved = policies.flavors.get(actor, "update", pk=saved_id, pool=inside) if saved_id is not None else None
    found = _previewed(
        lambda: previews.of_flavor(actor, inside, saved=saved, **fleet_forms.flavor_data(request.GET))
    )
    return _fragment(request, found)


@require_POST
@page
def flavor_delete(request: HttpRequest, actor: Actor, flavor_id: int) -> HttpResponse:
    """Delete a flavor."""
    found = _flavor(actor, flavor_id, "delete")
    commands.delete_flavor(actor=actor, flavor_id=flavor_id)
    messages.success(request, f"Flavor {found.name} is deleted.")
    return redirect("console:pool", pool_id=found.pool_id)
