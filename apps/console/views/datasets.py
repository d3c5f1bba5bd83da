"""Datasets: the list, and one with its producers, consumers, events and lineage; a tenant's variables and
connections."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.tenants import policies as tenant_policies
from apps.tenants import stored
from apps.tenants.models import StoredValue
from apps.workflows import commands, datasets

from .. import queries
from ..context import chosen_tenant
from ..folding import fold
from ..pages import known, numbered_page, page, page_of, show, text


@require_safe
@page
def dataset_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Datasets with when they were updated and how many use them."""
    rows = queries.narrowed(datasets.list_datasets(actor), chosen_tenant(request, actor))
    words = text(request, "q")
    if words:
        rows = rows.filter(uri__icontains=words)
    context = {"crumbs": [{"label": "Datasets"}], "page": numbered_page(request, rows, "uri", "pk")}
    return show(request, "console/datasets/page.html", context, {"dataset-list": "console/datasets/_list.html"})


@require_safe
@page
def dataset(request: HttpRequest, actor: Actor, dataset_id: int) -> HttpResponse:
    """One dataset: who makes it, who waits for it, its events, and the graph around it."""
    found = datasets.dataset_of(actor, dataset_id)
    uses = datasets.uses_of(found)
    context = {
        "crumbs": [{"label": "Datasets", "url": reverse("console:datasets")}, {"label": found.uri}],
        "dataset": found,
        "producers": [use for use in uses if use.makes],
        "consumers": [use for use in uses if not use.makes],
        "page": page_of(request, datasets.list_events(actor, dataset_id), 20),
        "may_update": tenant_policies.tenants.allows(actor, "push", found.tenant),
    }
    partials = {"dataset-events": "console/datasets/_events.html"}
    return show(request, "console/datasets/detail.html", context, partials)


@require_safe
@page
def dataset_lineage(request: HttpRequest, actor: Actor, dataset_id: int) -> HttpResponse:
    """The graph of workflows and datasets around one."""
    found = datasets.lineage(datasets.dataset_of(actor, dataset_id))
    own = f"dataset:{dataset_id}"
    tasks = [
        {
            "id": node["id"], "label": node["label"], "sub": "this dataset" if node["id"] == own else node["kind"],
            "state": "succeeded" if node["id"] == own else "none", "width": None, "counts": {}, "panel": "",
            "parent": "",
        }
        for node in found["nodes"]
    ]  # fmt: skip
    return JsonResponse(fold(tasks, [(edge["source"], edge["target"]) for edge in found["edges"]], {}))


@require_POST
@page
def dataset_update(request: HttpRequest, actor: Actor, dataset_id: int) -> HttpResponse:
    """Say that a dataset was updated."""
    found = datasets.dataset_of(actor, dataset_id)
    commands.update_dataset(actor=actor, tenant=found.tenant, uri=found.uri)
    messages.success(request, f"{found.uri} is marked as updated.")
    return redirect("console:dataset", dataset_id=dataset_id)


@require_POST
@page
def stored_action(request: HttpRequest, actor: Actor, slug: str, action: str) -> HttpResponse:
    """Set or delete a tenant's variable or connection; what is wrong is said above the page."""
    tenant = tenant_policies.tenants.get(actor, slug=slug)
    values = request.POST.dict()
    name = values.get("name", "").strip()
    known(action, ("set-variable", "set-connection", "delete-variable", "delete-connection"))
    try:
        if action == "set-variable":
            stored.set_variable(actor=actor, tenant=tenant, name=name, value=values.get("value", ""))
            messages.success(request, f"Variable {name} is set.")
        elif action == "set-connection":
            fields = {key: values.get(key, "") for key in ("type", "host", "login", "password", "schema")}
            stored.set_connection(actor=actor, tenant=tenant, name=name, fields={**fields, "port": _port(values)})
            messages.success(request, f"Connection {name} is set.")
        else:
            kind = StoredValue.Kind(action.removeprefix("delete-"))
            stored.delete_stored(actor=actor, tenant=tenant, kind=kind, name=name)
            messages.success(request, f"{kind.label} {name} is deleted.")
    except DomainError as error:
        if not isinstance(error, Invalid):
            raise
        messages.error(request, str(error))
    return redirect("console:tenant", slug=slug)


def _port(values: dict[str, str]) -> int | None:
    raw = values.get("port", "").strip()
    if not raw:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) < 6):
        raise Invalid.field("port", f"{raw!r} is not a number from 1 to 65535.")
    return int(raw)
