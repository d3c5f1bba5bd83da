"""Tenants with their people and secrets, the event log, and a person's own API tokens."""

from datetime import timedelta

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.core.filters import apply_filters
from apps.events.filters import EventFilter
from apps.events.queries import list_events
from apps.jobs.consumption import consumption
from apps.quotas import policies as quota_policies
from apps.quotas.queries import quota_rows
from apps.tenants import commands, policies
from apps.tenants.models import Role, StoredValue, Tenant
from apps.tenants.queries import list_members, list_secrets, list_tenants, list_tokens
from apps.tenants.stored import list_stored

from .. import queries
from ..context import chosen_tenant
from ..forms import Field, Form
from ..pages import known, page, page_of, show, text
from .budgets import BudgetRow, budget_rows, budgets_of, may_budget

TOKEN_DAYS = (("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"))
TOKEN_SCOPES = (
    ("read", "Read: see what you see"),
    ("write", "Write: submit, trigger, cancel"),
    ("admin", "Admin: also govern, where your role allows it"),
)
# Budgets that the page of a tenant shows; the quota page has all of them.
BUDGETS_MAX = 100
# What the log is mostly asked for, as verb filters.
EVENT_NOUNS = (
    "job",
    "attempt",
    "run",
    "task",
    "workflow",
    "node",
    "tenant",
    "member",
    "token",
    "quota",
    "budget",
    "pool",
)


@require_safe
@page
def tenants(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Tenants with their domain and what they have in flight."""
    found = list(list_tenants(actor))
    context = {
        "crumbs": [{"label": "Tenants"}],
        "rows": queries.tenant_rows(actor, found),
        "may_create": policies.tenants.allows(actor, "create", ""),
    }
    return show(request, "console/tenants/page.html", context)


@require_safe
@page
def tenant(request: HttpRequest, actor: Actor, slug: str) -> HttpResponse:
    """One tenant: its quota, people and secrets."""
    return _show_tenant(request, actor, policies.tenants.get(actor, slug=slug))


def _show_tenant(
    request: HttpRequest, actor: Actor, found: Tenant, member: Form | None = None, secret: Form | None = None
) -> HttpResponse:
    quota = [
        {"row": row, "may_edit": quota_policies.quotas.allows(actor, "set_limits", row)}
        for row in quota_rows(actor)
        if row.tenant == found.slug
    ]
    allows = policies.tenants.allows
    context = {
        "crumbs": [{"label": "Tenants", "url": reverse("console:tenants")}, {"label": found.name}],
        "found": found,
        "quota": quota,
        "budgets": _budgets(actor, found),
        "consumed": consumption(found, timezone.now()),
        "members": list_members(actor, found).order_by("role", "user__username"),
        "secrets": list_secrets(actor, found),
        "variables": list_stored(actor, found, StoredValue.Kind.VARIABLE),
        "connections": list_stored(actor, found, StoredValue.Kind.CONNECTION),
        "jobs": queries.job_counts(actor, found),
        "member_form": member or _member_form(),
        "secret_form": secret or _secret_form(),
        "may": {
            **{action: allows(actor, action, found) for action in ("manage_members", "manage_secrets", "suspend")},
            "quota": quota_policies.quotas.allows(actor, "create", found),
            "budget": may_budget(actor, found),
        },
    }
    partials = {"tenant-budgets": "console/tenants/_budgets.html"}
    return show(request, "console/tenants/detail.html", context, partials, status=422 if member or secret else 200)


def _budgets(actor: Actor, found: Tenant) -> list[BudgetRow]:
    """What binds jobs of the reader here: the budgets of the tenant, its workflows and its domain, and their own."""
    mine = Q(tenant=found) | Q(domain=found.domain_id)
    if found.pk in actor.tenant_roles:
        mine |= Q(user=actor.user_id)
    return budget_rows(actor, budgets_of(actor, mine)[:BUDGETS_MAX])


def _member_form() -> Form:
    roles = [(role, role.capitalize()) for role in (Role.MEMBER, Role.ADMIN, Role.AUDITOR)]
    return Form(
        {
            "username": Field("username", "User name", placeholder="alice"),
            "role": Field("role", "Role", "select", choices=roles, value=Role.MEMBER),
        }
    )


def _secret_form() -> Form:
    return Form(
        {
            "name": Field("name", "Name", placeholder="hub-token", mono=True),
            "value": Field("value", "Value", "password", help="Encrypted at once; nobody reads it back."),
        }
    )


@require_POST
@page
def tenant_action(request: HttpRequest, actor: Actor, slug: str, action: str) -> HttpResponse:
    """Change a tenant's people, secrets or suspension; refusals stand beside the field."""
    found = policies.tenants.get(actor, slug=slug)
    values = request.POST.dict()
    form: Form | None = None
    try:
        if action == "add-member":
            form = _member_form()
            form.fill(values)
            username, role = values.get("username", "").strip(), values.get("role", "")
            commands.add_member(actor=actor, username=username, role=role, tenant=found)
            messages.success(request, f"{username} is now {role} of {found.name}.")
        elif action == "remove-member":
            commands.remove_member(actor=actor, membership_id=_number(values, "membership"))
            messages.success(request, "The role is taken away.")
        elif action == "set-secret":
            form = _secret_form()
            form.fill({**values, "value": ""})
            name = values.get("name", "").strip()
            commands.set_secret(actor=actor, tenant=found, name=name, value=values.get("value", ""))
            messages.success(request, f"Secret {name} is stored.")
        elif action == "delete-secret":
            commands.delete_secret(actor=actor, tenant=found, name=values.get("name", ""))
            messages.success(request, "The secret is deleted.")
        else:
            suspended = known(action, ("suspend", "resume")) == "suspend"
            commands.set_tenant_suspended(actor=actor, tenant_id=found.pk, suspended=suspended)
            said = "is suspended: nothing new starts" if suspended else "may start jobs again"
            messages.success(request, f"{found.name} {said}.")
    except DomainError as error:
        if form is None:
            raise
        # NotFound of a user name belongs to that field; what names no field belongs to the first one.
        first = next(iter(form.fields))
        form.refuse(error, {name: name for name in form.fields} | ({} if error.errors else {first: ""}))
        parts = {"add-member": {"member": form}, "set-secret": {"secret": form}}
        return _show_tenant(request, actor, found, **parts[action])
    return redirect("console:tenant", slug=slug)


def _number(values: dict[str, str], name: str) -> int:
    raw = values.get(name, "")
    if not (raw.isascii() and raw.isdigit() and len(raw) < 19):
        raise Invalid.field(name, f"{raw!r} is not a whole number.")
    return int(raw)


@require_safe
@page
def events(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The event log, newest first."""
    chosen = chosen_tenant(request, actor)
    asked = {name: value for name in ("verb", "subject", "actor") if (value := text(request, name))}
    rows = apply_filters(EventFilter, asked, queries.narrowed_events(list_events(actor), chosen))
    context = {
        "crumbs": [{"label": "Events"}],
        "page": page_of(request, rows, scans=EventFilter.scans(asked)),
        "nouns": [(f"{noun}.*", noun.capitalize()) for noun in EVENT_NOUNS],
    }
    return show(request, "console/events/page.html", context, {"event-list": "console/events/_list.html"})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def tokens(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The person's own API tokens; a new one is shown in the answer to its making, and never again."""
    form = Form(
        {
            "name": Field("name", "Name", placeholder="ci pipeline", help="What will use it."),
            "scopes": Field("scopes", "Scope", "select", value="write", choices=TOKEN_SCOPES),
            "expires_at": Field("expires_at", "Expires after", "select", value="30", choices=TOKEN_DAYS),
        }
    )
    token = ""
    status = 200
    if request.method == "POST":
        values = request.POST.dict()
        form.fill(values)
        try:
            days = min(_number(values, "expires_at"), 10_000)
            _, token = commands.create_token(
                actor=actor,
                name=values.get("name", ""),
                scopes=[values.get("scopes", "")],
                expires_at=timezone.now() + timedelta(days=days),
            )
        except DomainError as error:
            form.refuse(error, {name: name for name in form.fields})
            status = 422
        else:
            form["name"].value = ""
    context = {
        "crumbs": [{"label": "API tokens"}],
        "form": form,
        "token": token,
        "rows": list_tokens(actor),
        "now": timezone.now(),
    }
    answer = show(request, "console/tokens/page.html", context, status=status)
    if token:
        answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@page
def token_revoke(request: HttpRequest, actor: Actor, token_id: int) -> HttpResponse:
    """End a token at once."""
    token = commands.revoke_token(actor=actor, token_id=token_id)
    messages.success(request, f"Token {token.name} is revoked.")
    return redirect("console:tokens")
