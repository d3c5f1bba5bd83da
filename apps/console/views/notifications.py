"""Notifications: destinations, one with who tells it what and its messages, and the cards on the pages of tenants and
workflows."""

from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Forbidden, Invalid
from apps.notifications import commands, policies, queries
from apps.notifications.messages import KIND_WORDS, short_subject
from apps.notifications.models import SUBJECTS, Delivery, Destination, Subscription
from apps.notifications.states import DeliveryState
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from apps.tenants.queries import list_tenants, tenant_named
from apps.workflows.models import Run, Workflow

from .. import queries as console
from ..context import chosen_tenant
from ..forms import Field, Form, several
from ..pages import Page, back, choice, known, numbered_page, page, page_of, show
from ..words import sentence
from .workflows import workflow_of

# Workflows that the form offers.
WORKFLOWS_MAX = 500
ACTIONS = ("test", "enable", "disable", "change", "delete", "subscribe", "unsubscribe")
TABS = (
    ("", "All"),
    (DeliveryState.PENDING, "Waiting"),
    (DeliveryState.SENT, "Sent"),
    (DeliveryState.DEAD, "Given up"),
)
KINDS = tuple((kind.value, sentence(KIND_WORDS[kind])) for kind in SUBJECTS)
PATHS = {name: name for name in ("tenant", "name", "channel", "url", "secret", "to", "per_minute", "kinds", "workflow")}


@require_safe
@page
def notifications(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Destinations, and the latest messages to all of them."""
    chosen = chosen_tenant(request, actor)
    heard = Prefetch("subscriptions", Subscription.objects.select_related("workflow").order_by("workflow__name"))
    rows = console.narrowed(queries.list_destinations(actor), chosen).prefetch_related(heard)
    state = choice(request, "state", [value for value, _ in TABS if value])
    sent = console.narrowed(queries.list_deliveries(actor), chosen)
    context = {
        "crumbs": [{"label": "Notifications"}],
        "destinations": numbered_page(request, rows, "tenant__slug", "name"),
        "page": _titled(page_of(request, sent.filter(state=state) if state else sent, 25)),
        "state": state,
        "tabs_of_states": [(value, label, None) for value, label in TABS],
        "may_create": any(_may_create(actor, tenant) for tenant in list_tenants(actor)),
    }
    partials = {
        "destination-list": "console/notifications/_list.html",
        "delivery-list": "console/notifications/_deliveries.html",
    }
    return show(request, "console/notifications/page.html", context, partials)


def _titled(found: Page[Delivery]) -> Page[Delivery]:
    """Messages with their titles; one that was not sent yet is called as it would be within another."""
    runs = {delivery.facts["run"] for delivery in found if not delivery.payload and "run" in delivery.facts}
    names = dict(Run.objects.filter(pk__in=runs).values_list("pk", "workflow__name"))
    for delivery in found:
        title = (delivery.payload or {}).get("subject") or short_subject(delivery, names)
        delivery.title = title  # type: ignore[attr-defined]
    return found


def _may_create(actor: Actor, tenant: Tenant) -> bool:
    return tenant_policies.tenants.allows(actor, "manage_secrets", tenant)


def _form(tenants: list[tuple[str, str]]) -> Form:
    channels = [(channel.value, channel.label) for channel in Destination.Channel]
    fields = [
        Field("tenant", "Tenant", "select", choices=tenants),
        Field("name", "Name", placeholder="oncall", mono=True, help="What workflows call it."),
        Field("channel", "Kind", "select", choices=channels, value=Destination.Channel.WEBHOOK),
        *_credentials(),
    ]
    return Form({item.name: item for item in fields})


def _credentials(kept: bool = False) -> list[Field]:
    keep = " Kept when empty." if kept else ""
    return [
        Field("url", "URL", optional=True, mono=True, placeholder="https://hooks.example.org/…",
              help=f"Of a webhook or a chat; encrypted, never shown again.{keep}"),
        Field("to", "Receivers", optional=True, placeholder="a@example.org, b@example.org", help="Of an e-mail."),
        Field("secret", "Secret", "password", optional=True,
              help=f"Signs what a webhook gets{'.' if kept else '; one is made when it is empty.'}{keep}"),
        Field("per_minute", "Messages a minute", "number", value="10", help="More are told together in one."),
    ]  # fmt: skip


def _given(values: dict[str, str]) -> dict[str, Any]:
    """What was typed of a destination. Raises Invalid."""
    rate = values.get("per_minute", "").strip() or "10"
    if not (rate.isascii() and rate.isdigit() and len(rate) < 6):
        raise Invalid.field("per_minute", "a whole number.", "invalid")
    given: dict[str, Any] = {"per_minute": int(rate)}
    given |= {name: value for name in ("url", "secret") if (value := values.get(name, "").strip())}
    if to := [address.strip() for address in values.get("to", "").split(",") if address.strip()]:
        given["to"] = to
    return given


@require_http_methods(["GET", "HEAD", "POST"])
@page
def destination_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Make a destination; the secret of a webhook is shown in the answer, and never again."""
    mine = [tenant for tenant in list_tenants(actor) if _may_create(actor, tenant)]
    if not mine:
        raise Forbidden("Destinations are made by the admins of a tenant.")
    form = _form([(tenant.slug, tenant.name) for tenant in mine])
    form["tenant"].value = request.GET.get("tenant", "")
    made, secret = None, ""
    if request.method == "POST":
        values = request.POST.dict()
        form.fill({**values, "secret": ""})
        try:
            made, secret = commands.create_destination(
                actor=actor,
                tenant=tenant_named(actor, values.get("tenant")),
                name=values.get("name", "").strip(),
                channel=values.get("channel", ""),
                **_given(values),
            )
        except DomainError as error:
            form.refuse(error, PATHS)
        else:
            messages.success(request, f"{made.name} is made. Choose what it hears of.")
            if not secret or values.get("secret"):
                return redirect("console:destination", destination_id=made.pk)
    refused = bool(form.problems) or any(item.error for item in form.fields.values())
    context = {
        "crumbs": [{"label": "Notifications", "url": reverse("console:notifications")}, {"label": "New destination"}],
        "form": form,
        "made": made,
        "secret": secret,
    }
    answer = show(request, "console/notifications/new.html", context, status=422 if refused else 200)
    if secret:
        answer["Cache-Control"] = "no-store"
    return answer


@require_safe
@page
def destination(request: HttpRequest, actor: Actor, destination_id: int) -> HttpResponse:
    """One destination: what it hears of, and its messages."""
    return _show(request, actor, queries.destination_of(actor, destination_id))


def _show(request: HttpRequest, actor: Actor, found: Destination, form: Form | None = None) -> HttpResponse:
    state = choice(request, "state", [value for value, _ in TABS if value])
    rows = queries.list_deliveries(actor).filter(destination=found)
    context = {
        "crumbs": [{"label": "Notifications", "url": reverse("console:notifications")}, {"label": found.name}],
        "found": found,
        "subscriptions": queries.list_subscriptions(actor).filter(destination=found),
        "page": _titled(page_of(request, rows.filter(state=state) if state else rows, 25)),
        "state": state,
        "tabs_of_states": [(value, label, None) for value, label in TABS],
        "kinds": KINDS,
        "workflows": Workflow.objects.filter(tenant=found.tenant_id).values_list("name", flat=True)[:WORKFLOWS_MAX],
        "form": form or _change_form(found),
        "may": {
            action: policies.destinations.allows(actor, action, found)
            for action in ("change", "delete", "test", "subscribe")
        },
    }
    partials = {
        "destination-head": "console/notifications/_head.html",
        "delivery-list": "console/notifications/_deliveries.html",
    }
    return show(request, "console/notifications/detail.html", context, partials, status=422 if form else 200)


def _change_form(found: Destination) -> Form:
    fields = {item.name: item for item in _credentials(kept=True)}
    for name in ("url", "secret") if found.channel == Destination.Channel.EMAIL else ("to",):
        del fields[name]
    if found.channel not in (Destination.Channel.EMAIL, Destination.Channel.WEBHOOK):
        del fields["secret"]
    if "to" in fields:
        fields["to"].value = ", ".join(found.shown.get("to", ()))
    fields["per_minute"].value = str(found.per_minute)
    return Form(fields)


@require_POST
@page
def destination_action(request: HttpRequest, actor: Actor, destination_id: int, action: str) -> HttpResponse:
    """Test, switch, change, delete or subscribe; refusals stand beside the field or above the page."""
    found = queries.destination_of(actor, destination_id)
    known(action, ACTIONS)
    if action == "change":
        form = _change_form(found)
        form.fill({**request.POST.dict(), "secret": ""})
        try:
            commands.change_destination(actor=actor, destination_id=found.pk, **_given(request.POST.dict()))
        except Invalid as error:
            form.refuse(error, PATHS)
            return _show(request, actor, found, form)
        messages.success(request, f"{found.name} is changed.")
    elif action == "delete":
        commands.delete_destination(actor=actor, destination_id=found.pk)
        messages.success(request, f"{found.name} is deleted.")
        return redirect("console:notifications")
    elif action == "test":
        commands.send_test(actor=actor, destination_id=found.pk)
        messages.success(request, f"A test message goes to {found.name}.")
    elif action in ("enable", "disable"):
        commands.change_destination(actor=actor, destination_id=found.pk, enabled=action == "enable")
    else:
        _subscription(request, actor, found, action)
    return back(request, reverse("console:destination", args=[found.pk]))


def _subscription(request: HttpRequest, actor: Actor, found: Destination, action: str) -> None:
    if action == "unsubscribe":
        commands.unsubscribe(actor=actor, subscription_id=_number(request, "subscription"))
        messages.success(request, "The subscription is taken away.")
        return
    workflow = request.POST.get("workflow", "").strip() or None
    kinds = several(request.POST, "kinds")
    commands.subscribe(actor=actor, destination_id=found.pk, kinds=kinds, workflow=workflow)
    messages.success(request, f"{found.name} hears of it from now on.")


@require_POST
@page
def delivery_again(request: HttpRequest, actor: Actor, delivery_id: int) -> HttpResponse:
    """Send a message once more."""
    delivery = commands.send_again(actor=actor, delivery_id=delivery_id)
    messages.success(request, "It is sent again.")
    return back(request, reverse("console:destination", args=[delivery.destination_id]))


@require_safe
@page
def tenant_notifications(request: HttpRequest, actor: Actor, slug: str) -> HttpResponse:
    """The card on a tenant's page; it is fetched by itself."""
    tenant = tenant_policies.tenants.get(actor, slug=slug)
    context = {
        "found": tenant,
        "rows": queries.list_destinations(actor).filter(tenant=tenant).order_by("name"),
        "may_create": _may_create(actor, tenant),
    }
    return show(request, "console/notifications/_tenant.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def workflow_notifications(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """The card on a workflow's page: who hears of it, by its definition and by subscriptions."""
    found = workflow_of(actor, workflow_id)
    if request.method == "POST":
        chosen = queries.destination_of(actor, _number(request, "destination"))
        kinds = several(request.POST, "kinds")
        commands.subscribe(actor=actor, destination_id=chosen.pk, kinds=kinds, workflow=found.name)
        messages.success(request, f"{chosen.name} hears of {found.name} from now on.")
        return redirect("console:workflow", workflow_id=found.pk)
    definition = found.current.definition if found.current else {"tasks": []}
    mine = queries.list_subscriptions(actor).filter(destination__tenant=found.tenant_id)
    context = {
        "workflow": found,
        "rules": _rules(definition),
        "subscriptions": mine.filter(workflow=found) | mine.filter(workflow=None),
        "destinations": policies.destinations.visible(actor).filter(tenant=found.tenant_id),
        "kinds": [(value, label) for value, label in KINDS if value != "budget.warned"],
        "may_subscribe": tenant_policies.tenants.allows(actor, "push", found.tenant),
    }
    return show(request, "console/notifications/_workflow.html", context)


def _rules(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """What the definition says of who hears of what: that of the workflow, and each of its tasks' once."""
    rules = [{"tasks": "", **rule} for rule in definition.get("notify", ())]
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for task in definition["tasks"]:
        for rule in task.get("notify", ()):
            alike.setdefault((tuple(rule["on"]), tuple(rule["to"])), []).append(task["id"])
    for (on, to), tasks in alike.items():
        rules.append({"tasks": tasks[0] if len(tasks) == 1 else f"{len(tasks):,} tasks", "on": on, "to": to})
    return rules


def _number(request: HttpRequest, name: str) -> int:
    """A number that was sent. Raises Invalid."""
    raw = request.POST.get(name, "")
    if not (raw.isascii() and raw.isdigit() and len(raw) < 19):
        raise Invalid.field(name, f"{raw!r} is not a whole number.")
    return int(raw)
