"""Domains with their tenants, clusters and providers, and the forms that make them."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import Conflict, DomainError, Forbidden, Invalid
from apps.fleet import commands as fleet_commands
from apps.fleet import policies as fleet_policies
from apps.fleet.models import Cluster
from apps.fleet.states import NodeState
from apps.tenants import commands, policies
from apps.tenants.models import Domain, Role

from ..forms import Field, Form
from ..pages import known, numbered_page, page, show

CRUMB = {"label": "Domains"}
SLUG_HELP = "Small letters, digits and -; it stays."


@require_safe
@page
def domains(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Organisations: what they consume as and what they provide."""
    return _show_list(request, actor)


def _show_list(request: HttpRequest, actor: Actor, provider: tuple[int, Form] | None = None) -> HttpResponse:
    live = Count("nodes", filter=~Q(nodes__state=NodeState.REMOVED))
    clusters = fleet_policies.clusters.visible(actor).annotate(live=live).order_by("name")
    people = policies.memberships.visible(actor).filter(role=Role.PROVIDER).select_related("user")
    rows = policies.domains.visible(actor).prefetch_related(
        Prefetch("tenants", policies.tenants.visible(actor).order_by("name")),
        Prefetch("clusters", clusters),
        Prefetch("memberships", people.order_by("user__username"), to_attr="providers"),
    )
    found = numbered_page(request, rows, "name", "pk", size=20)
    context = {
        "crumbs": [CRUMB],
        "page": found,
        "rows": [
            {
                "domain": row,
                "form": provider[1] if provider and provider[0] == row.pk else _provider_form(),
                "may_provide": fleet_policies.clusters.allows(actor, "create", row),
                "may_update": policies.domains.allows(actor, "update", row),
            }
            for row in found
        ],
        "may": {
            "domain": policies.domains.allows(actor, "create", ""),
            "tenant": policies.tenants.allows(actor, "create", ""),
            "remove": actor.operator,
        },
    }
    partials = {"domain-list": "console/domains/_list.html"}
    return show(request, "console/domains/page.html", context, partials, status=422 if provider else 200)


def _provider_form() -> Form:
    return Form({"username": Field("username", "User name", placeholder="alice")})


def _form(*fields: Field) -> Form:
    return Form({item.name: item for item in fields})


def _show_form(request: HttpRequest, form: Form, template: str, title: str, **more: Any) -> HttpResponse:
    crumbs = [{**CRUMB, "url": reverse("console:domains")}, {"label": title}]
    context = {"crumbs": crumbs, "form": form, "title": title, **more}
    return show(request, template, context, status=422 if request.method == "POST" else 200)


def _refuse(form: Form, error: DomainError, key: str) -> None:
    """A name that is taken is that of the field `key`; every other fault names its field."""
    if isinstance(error, Conflict) and error.code == "exists":
        form[key].error = error.detail
    else:
        form.refuse(error, {name: name for name in form.fields})


def _typed(request: HttpRequest, name: str, most: int = 200) -> str:
    """One line that was typed. Raises Invalid for one that is too long."""
    value = request.POST.get(name, "").replace("\x00", "").strip()
    if len(value) > most:
        raise Invalid.field(name, f"at most {most} characters.")
    return value


@require_http_methods(["GET", "HEAD", "POST"])
@page
def domain_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a domain."""
    policies.domains.require(actor, "create", "")
    form = _form(
        Field("slug", "Short name", mono=True, placeholder="north-lab", help=SLUG_HELP),
        Field("name", "Name", optional=True, placeholder="North Lab", help="As people call it."),
    )
    if request.method == "POST":
        form.fill(request.POST)
        try:
            made = commands.create_domain(actor=actor, slug=_typed(request, "slug"), name=_typed(request, "name"))
        except DomainError as error:
            _refuse(form, error, "slug")
        else:
            messages.success(request, f"Domain {made.name} is made; give it a tenant or a cluster.")
            return redirect("console:domains")
    return _show_form(request, form, "console/domains/new.html", "New domain")


def _domain_field(choices: list[Domain], asked: str) -> Field:
    item = Field("domain", "Domain", "select", choices=[(row.slug, row.name) for row in choices])
    item.value = asked if asked in dict(item.choices) else (choices[0].slug if choices else "")
    return item


def _chosen(choices: list[Domain], request: HttpRequest) -> Domain:
    slug = request.POST.get("domain", "")
    found = next((row for row in choices if row.slug == slug), None)
    if found is None:
        raise Invalid.field("domain", f"{slug!r} is not one of {', '.join(row.slug for row in choices)}.")
    return found


@require_http_methods(["GET", "HEAD", "POST"])
@page
def tenant_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a tenant in a domain."""
    policies.tenants.require(actor, "create", "")
    choices = list(policies.domains.visible(actor).order_by("name"))
    if not choices:
        raise Forbidden("There is no domain yet that the tenant could belong to: make one first.")
    form = _form(
        _domain_field(choices, request.GET.get("domain", "")),
        Field("slug", "Short name", mono=True, placeholder="vision", help=SLUG_HELP),
        Field("name", "Name", optional=True, placeholder="Vision group", help="As people call it."),
    )
    if request.method == "POST":
        form.fill(request.POST)
        try:
            domain = _chosen(choices, request)
            made = commands.create_tenant(
                actor=actor, domain=domain, slug=_typed(request, "slug"), name=_typed(request, "name")
            )
        except DomainError as error:
            _refuse(form, error, "slug")
        else:
            messages.success(request, f"Tenant {made.name} is made. Give it a quota and people.")
            return redirect("console:tenant", slug=made.slug)
    return _show_form(request, form, "console/domains/tenant_new.html", "New tenant")


@require_http_methods(["GET", "HEAD", "POST"])
@page
def cluster_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a cluster in a domain that the actor provides for."""
    choices = [
        row
        for row in policies.domains.visible(actor).order_by("name")
        if fleet_policies.clusters.allows(actor, "create", row)
    ]
    if not choices:
        raise Forbidden("You provide for no domain: ask an operator.")
    form = _form(
        _domain_field(choices, request.GET.get("domain", "")),
        Field("name", "Name", mono=True, placeholder="lab-1", help=SLUG_HELP),
        _region_field(),
    )
    if request.method == "POST":
        form.fill(request.POST)
        try:
            domain, name, region = _chosen(choices, request), _typed(request, "name"), _typed(request, "region")
            made = fleet_commands.create_cluster(actor=actor, domain=domain, name=name, region=region)
        except DomainError as error:
            _refuse(form, error, "name")
        else:
            messages.success(request, f"Cluster {made.name} is made. Join its nodes, and lend it to be in pools.")
            return redirect("console:domains")
    return _show_form(request, form, "console/domains/cluster.html", "New cluster")


def _region_field(value: str = "") -> Field:
    help_ = "Where its nodes stand; jobs can ask for a region."
    return Field("region", "Region", value=value, optional=True, mono=True, placeholder="eu-central", help=help_)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def cluster(request: HttpRequest, actor: Actor, cluster_id: int) -> HttpResponse:
    """Change where a cluster stands."""
    found: Cluster = fleet_policies.clusters.get(actor, "update", pk=cluster_id)
    form = _form(_region_field(found.region))
    if request.method == "POST":
        form.fill(request.POST)
        try:
            fleet_commands.update_cluster(actor=actor, cluster_id=cluster_id, region=_typed(request, "region"))
        except DomainError as error:
            _refuse(form, error, "region")
        else:
            messages.success(request, f"Cluster {found.name} is saved.")
            return redirect("console:domains")
    empty = not found.nodes.exists()
    return _show_form(request, form, "console/domains/cluster.html", found.name, cluster=found, empty=empty)


@require_POST
@page
def cluster_delete(request: HttpRequest, actor: Actor, cluster_id: int) -> HttpResponse:
    """Delete a cluster that never had a node."""
    found: Cluster = fleet_policies.clusters.get(actor, "delete", pk=cluster_id)
    fleet_commands.delete_cluster(actor=actor, cluster_id=cluster_id)
    messages.success(request, f"Cluster {found.name} is deleted.")
    return redirect("console:domains")


@require_POST
@page
def domain_action(request: HttpRequest, actor: Actor, domain_id: int, action: str) -> HttpResponse:
    """Make somebody a provider of the domain, or no longer one; refusals stand beside the field."""
    found: Domain = policies.domains.get(actor, pk=domain_id)
    if known(action, ("add-provider", "remove-provider")) == "remove-provider":
        username = _typed(request, "username")
        role = policies.memberships.get(actor, domain=found, role=Role.PROVIDER, user__username=username)
        commands.remove_member(actor=actor, membership_id=role.pk)
        messages.success(request, f"{username} provides for {found.name} no longer.")
        return redirect("console:domains")
    form = _provider_form()
    form.fill(request.POST)
    try:
        username = _typed(request, "username")
        commands.add_member(actor=actor, username=username, role=Role.PROVIDER, domain=found)
    except DomainError as error:
        form["username"].error = error.detail
        return _show_list(request, actor, (found.pk, form))
    messages.success(request, f"{username} provides for {found.name} now.")
    return redirect("console:domains")
