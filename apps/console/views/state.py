"""What a workflow keeps: its values, who wrote them last and before, and how often its tasks came from the cache."""

import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.events.queries import events_of
from apps.workflows import commands, policies
from apps.workflows.models import StateValue

from ..pages import known, number, numbered_page, page, show
from .workflows import head_of, workflow_of

VALUES = 50
WRITES = 30
# Characters of a value that the list shows.
SHOWN = 400


@require_safe
@page
def workflow_state(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """The state of a workflow, or of one of its runs (`?run=`), and its latest writes."""
    found = workflow_of(actor, workflow_id)
    asked = number(request, "run")
    run = policies.runs.get(actor, pk=asked, workflow=found) if asked is not None else None
    rows = StateValue.objects.filter(workflow=found, run=run)
    listed = numbered_page(request, rows, "key", "pk", size=VALUES)
    subject = ("workflow", found.pk) if run is None else ("run", run.pk)
    context = {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": found.name, "url": reverse("console:workflow", args=[found.pk])},
            {"label": "State" if run is None else f"State of run {run.pk}"},
        ],
        **head_of(actor, found),
        "view": "state",
        "state_run": run,
        "page": listed,
        "values": [{"row": row, "text": _short(row.value)} for row in listed],
        "writes": events_of(actor, *subject).filter(verb__startswith="state.")[:WRITES],
        "may_set": policies.workflows.allows(actor, "set_state", found),
    }
    partials = {"workflow-head": "console/workflows/_head.html", "state": "console/workflows/_state.html"}
    return show(request, "console/workflows/state.html", context, partials)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@require_POST
@page
def workflow_state_action(request: HttpRequest, actor: Actor, workflow_id: int, action: str) -> HttpResponse:
    """Set or delete a value; what is wrong is said above the page."""
    known(action, ("set", "delete"))
    key = request.POST.get("key", "").strip()
    asked = request.POST.get("run", "")
    scope = {"run_id": int(asked)} if asked.isascii() and asked.isdigit() else {"workflow_id": workflow_id}
    version = request.POST.get("version", "")
    expected = int(version) if version.isascii() and version.isdigit() and len(version) < 19 else None
    try:
        if action == "delete":
            commands.delete_state(actor=actor, key=key, expected=expected, **scope)
            messages.success(request, f"{key} is deleted.")
        else:
            commands.set_state(actor=actor, key=key, value=_value(request.POST.get("value", "")), **scope)
            messages.success(request, f"{key} is set.")
    except (Invalid, Conflict) as error:
        messages.error(request, str(error))
    back = redirect("console:workflow-state", workflow_id=workflow_id)
    if "run_id" in scope:
        back["Location"] += f"?run={scope['run_id']}"
    return back


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid.field("value", f"{text[:60]!r} is not JSON; put text in double quotes.", "not_json") from None
