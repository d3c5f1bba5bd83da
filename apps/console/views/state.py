"""What a workflow or a run keeps: its values, and who wrote them last and before."""

import json
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.events.queries import events_of
from apps.workflows import commands, policies
from apps.workflows.models import Run, StateValue, Workflow

from ..pages import known, numbered_page, page, show
from .workflows import head_of, run_head_of, run_of, workflow_of

VALUES = 50
WRITES = 30
# Characters of a value that the list shows.
SHOWN = 400


@require_safe
@page
def workflow_state(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """The state of a workflow and its latest writes."""
    found = workflow_of(actor, workflow_id)
    context = {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": found.name, "url": reverse("console:workflow", args=[found.pk])},
            {"label": "State"},
        ],
        **head_of(actor, found),
        "view": "state",
        **_values(request, actor, found, None),
    }
    partials = {"workflow-head": "console/workflows/_head.html", "state": "console/workflows/_state.html"}
    return show(request, "console/workflows/state.html", context, partials)


@require_safe
@page
def run_state(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """The state of one run and its latest writes."""
    found = run_of(actor, run_id)
    context = {**run_head_of(actor, found), "view": "state", **_values(request, actor, found.workflow, found)}
    partials = {"run-head": "console/runs/_head.html", "state": "console/workflows/_state.html"}
    return show(request, "console/runs/state.html", context, partials)


def _values(request: HttpRequest, actor: Actor, workflow: Workflow, run: Run | None) -> dict[str, Any]:
    """What `_state.html` shows and `_state_set.html` needs."""
    listed = numbered_page(request, StateValue.objects.filter(workflow=workflow, run=run), "key", "pk", size=VALUES)
    subject = ("workflow", workflow.pk) if run is None else ("run", run.pk)
    return {
        "workflow": workflow,
        "state_run": run,
        "page": listed,
        "values": [{"row": row, "text": _short(row.value)} for row in listed],
        "writes": [
            {"event": event, "panel": _panel(str(event.facts.get("task", "")))}
            for event in events_of(actor, *subject).filter(verb__startswith="state.")[:WRITES]
        ],
        "may_set": policies.workflows.allows(actor, "set_state", workflow),
    }


def _panel(task: str) -> str:
    """The query of a run's page that opens the panel of a task, or of an instance (`score[8]`)."""
    name, _, index = task.rstrip("]").partition("[")
    return urlencode({"task": name, **({"index": index} if index else {})})


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@require_POST
@page
def workflow_state_action(request: HttpRequest, actor: Actor, workflow_id: int, action: str) -> HttpResponse:
    """Set or delete a value; what is wrong is said above the page."""
    known(action, ("set", "delete"))
    key = request.POST.get("key", "").strip()
    run, expected = _number(request, "run"), _number(request, "version")
    scope = {"workflow_id": workflow_id} if run is None else {"run_id": run}
    try:
        if action == "delete":
            commands.delete_state(actor=actor, key=key, expected=expected, **scope)
            messages.success(request, f"{key} is deleted.")
        else:
            commands.set_state(actor=actor, key=key, value=_value(request.POST.get("value", "")), **scope)
            messages.success(request, f"{key} is set.")
    except (Invalid, Conflict) as error:
        messages.error(request, str(error))
    if run is not None:
        return redirect("console:run-state", run_id=run)
    return redirect("console:workflow-state", workflow_id=workflow_id)


def _number(request: HttpRequest, name: str) -> int | None:
    """A number that was sent, if one was."""
    raw = request.POST.get(name, "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 19 else None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid.field("value", f"{text[:60]!r} is not JSON; put text in double quotes.", "not_json") from None
