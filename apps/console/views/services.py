"""Services: the list, one with its replicas, revisions and rollouts, and the form that deploys one."""

from typing import Any

import yaml
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.services import commands, policies
from apps.services.models import Service
from apps.services.queries import detail_of, list_services
from apps.services.states import ServiceState
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from engine.services import Condition
from rmctl.sdk import yaml_loader
from rmctl.sdk.options import SdkError
from rmctl.spec.service import MAX_REPLICAS, written

from .. import queries
from ..context import chosen_tenant
from ..forms import Field, Form
from ..pages import known, number, numbered_page, page, show, text

# The colours of other states that mean the same.
TONES = {
    Condition.READY: "ready",
    Condition.STARTING: "running",
    Condition.DEGRADED: "pending",
    Condition.CRASH_LOOP: "failed",
    Condition.STOPPING: "cancelling",
    Condition.STOPPED: "cancelled",
}
ROLLOUT_TONES = {
    "rolling": "running", "complete": "succeeded", "failed": "failed", "superseded": "skipped", "stopped": "cancelled",
}  # fmt: skip
ACTIONS = ("scale", "rollback", "stop", "remove")
EXAMPLE = {
    "name": "web",
    "replicas": 2,
    "job": {"groups": [{"command": ["python", "-m", "http.server", "8000"], "resources": {"cpu": "100m"}}]},
    "rollout": {"max_surge": 1, "max_unavailable": 0, "min_ready": "5s"},
}


@require_safe
@page
def service_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Services of the person's tenants."""
    rows = queries.narrowed(list_services(actor), chosen_tenant(request, actor))
    words = text(request, "q")
    if words:
        rows = rows.filter(name__icontains=words)
    found = numbered_page(request, rows, "name", "pk")
    context = {
        "crumbs": [{"label": "Services"}],
        "page": found,
        "rows": [(row, TONES[Condition(row.condition)]) for row in found.rows],
        "may_deploy": bool(_tenants(actor)),
    }
    return show(request, "console/services/page.html", context, {"service-list": "console/services/_list.html"})


@require_safe
@page
def service(request: HttpRequest, actor: Actor, service_id: int) -> HttpResponse:
    """One service."""
    found = detail_of(actor, service_id)
    row = found.service
    active = row.state == ServiceState.ACTIVE
    current = row.rollout.revision_id if row.rollout is not None else None
    may = {action: policies.services.allows(actor, action, row) for action in ("deploy", *ACTIONS)}
    context = {
        "crumbs": [_crumb(), {"label": row.name}],
        "service": row,
        "tone": TONES[Condition(row.condition)],
        "rollout_tone": ROLLOUT_TONES[row.rollout.state] if row.rollout is not None else "none",
        "replicas": found.replicas,
        "revisions": [(one, active and one.pk == current) for one in found.revisions],
        "rollouts": [(one, ROLLOUT_TONES[one.state]) for one in found.rollouts],
        "may": {
            **may,
            "scale": may["scale"] and active,
            "stop": may["stop"] and active,
            "remove": may["remove"] and not active,
        },
        "most": MAX_REPLICAS,
    }
    parts = {"service-head": "console/services/_head.html", "service-parts": "console/services/_parts.html"}
    return show(request, "console/services/detail.html", context, parts)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def service_deploy(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Deploy a service from its text; refusals stand above it."""
    tenants = _tenants(actor)
    form = _form(tenants)
    form.fill(_presets(request, actor))
    if request.method == "POST":
        form.fill(request.POST)
        try:
            tenant = next((one for one in tenants if one.slug == form["tenant"].value), None)
            if tenant is None:
                raise Invalid.field("tenant", "choose one of the tenants that you are a member of.", "unknown")
            made = commands.deploy(actor=actor, tenant=tenant, data=_parsed(str(form["spec"].value)))
        except DomainError as error:
            _refuse(form, error)
        else:
            revision = made.rollout.revision.number
            news = "" if made.changed else " already; nothing is new"
            messages.success(request, f"It is at revision {revision}{news}.")
            return redirect("console:service", service_id=made.service.pk)
    context = {"crumbs": [_crumb(), {"label": "Deploy"}], "form": form}
    return show(request, "console/services/deploy.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@page
def service_action(request: HttpRequest, actor: Actor, service_id: int, action: str) -> HttpResponse:
    """Scale, roll back, stop or remove."""
    chosen = known(action, ACTIONS)
    if chosen == "remove":
        commands.remove(actor=actor, service_id=service_id)
        messages.success(request, "The service is removed.")
        return redirect("console:services")
    if chosen == "stop":
        commands.stop(actor=actor, service_id=service_id)
        messages.success(request, "Its replicas are being stopped.")
    else:
        field = "replicas" if chosen == "scale" else "revision"
        given = request.POST.get(field, "")
        if not (given.isascii() and given.isdigit() and len(given) < 10):
            raise Invalid.field(field, "a whole number.", "wrong_type")
        if chosen == "scale":
            commands.scale(actor=actor, service_id=service_id, replicas=int(given))
            messages.success(request, f"It is scaled to {int(given)}.")
        else:
            commands.rollback(actor=actor, service_id=service_id, revision=int(given))
            messages.success(request, f"Revision {int(given)} is rolled out.")
    return redirect("console:service", service_id=service_id)


def _tenants(actor: Actor) -> list[Tenant]:
    """Those for which the actor may deploy."""
    rows = tenant_policies.tenants.visible(actor).order_by("name")
    return [tenant for tenant in rows if tenant_policies.tenants.allows(actor, "submit", tenant)]


def _crumb() -> dict[str, str]:
    return {"label": "Services", "url": reverse("console:services")}


def _form(tenants: list[Tenant]) -> Form:
    choices = [(one.slug, one.name) for one in tenants]
    fields = (
        Field("tenant", "Tenant", "select", choices=choices),
        Field("spec", "Service", "textarea", mono=True, rows=24, help="YAML or JSON, as rmctl deploy takes it."),
    )
    return Form({field.name: field for field in fields})


def _refuse(form: Form, error: DomainError) -> None:
    """Each fault of the text stands below it, with its place in the text."""
    faults = [one for one in error.errors if one["field"] != "tenant"]
    if faults:
        form["spec"].error = " ".join(f"{one['field'] or 'service'}: {one['message']}" for one in faults)
    else:
        form.refuse(error, {"tenant": "tenant"})


def _presets(request: HttpRequest, actor: Actor) -> dict[str, str]:
    """The service that is to be changed as it is, or an example."""
    service_id = number(request, "service")
    if service_id is not None:
        found: Service = policies.services.get(actor, "deploy", pk=service_id)
        assert found.rollout is not None
        data: dict[str, Any] = written(found.name, found.replicas, found.policy, found.rollout.revision.spec)
        return {"tenant": found.tenant.slug, "spec": _text(data)}
    chosen = chosen_tenant(request, actor)
    return {"tenant": chosen.slug if chosen is not None else "", "spec": _text(EXAMPLE)}


def _text(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _parsed(given: str) -> dict[str, Any]:
    try:
        data = yaml_loader.parse(given)
    except SdkError as error:
        raise Invalid.field("spec", str(error), "bad_yaml") from None
    if not isinstance(data, dict):
        raise Invalid.field("spec", "a service is a mapping with name and job.", "wrong_type")
    return data
