"""Backfills: the list, one with its progress, and the form that shows what would run while it is typed."""

from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.workflows import commands, policies
from apps.workflows.backfills import plan_backfill
from apps.workflows.models import Backfill, Workflow
from apps.workflows.queries import backfill_of, list_backfills, with_counts
from apps.workflows.states import BACKFILL_ACTIVE, BackfillState

from .. import forms, queries
from ..context import chosen_tenant
from ..pages import choice, known, number, page, page_of, show

SHOWN = 15
PATHS = {name: name for name in ("first", "last", "existing", "order", "max_active_runs", "note")}
TABS = (
    ("", "All"),
    (BackfillState.RUNNING, "Running"),
    (BackfillState.PAUSED, "Paused"),
    (BackfillState.SUCCEEDED, "Succeeded"),
    (BackfillState.FAILED, "Failed"),
    (BackfillState.CANCELLED, "Cancelled"),
)
ACTIONS = ("pause", "resume", "cancel", "rerun")


@require_safe
@page
def backfills(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Backfills of every workflow, newest first."""
    state = choice(request, "state", BackfillState.values)
    rows = queries.narrowed(list_backfills(actor), chosen_tenant(request, actor))
    if state:
        rows = rows.filter(state=state)
    workflow_id = number(request, "workflow")
    if workflow_id is not None:
        rows = rows.filter(workflow=workflow_id)
    found = page_of(request, rows)
    context = {
        "crumbs": [{"label": "Backfills"}],
        "page": found,
        "rows": [_view(item) for item in with_counts(found.rows)],
        "state": state,
        "tabs_of_states": [(value, label, None) for value, label in TABS],
    }
    return show(request, "console/backfills/page.html", context, {"backfill-list": "console/backfills/_list.html"})


def _view(found: Backfill) -> dict[str, Any]:
    """A backfill with the parts of its progress bar; times that had a run already count as done."""
    counts: dict[str, int] = found.counts  # type: ignore[attr-defined]
    left = found.position - found.made
    bad = counts.get("failed", 0) + counts.get("cancelled", 0)
    return {
        "backfill": found,
        "counts": counts,
        "left": left,
        "bad": bad,
        "done": counts.get("succeeded", 0) + bad + left,
        "ahead": found.total - found.position,
    }


@require_safe
@page
def backfill(request: HttpRequest, actor: Actor, backfill_id: int) -> HttpResponse:
    """One backfill: how far it is, and its runs."""
    found = backfill_of(actor, backfill_id)
    runs = queries.recent_runs(actor, None).filter(backfill=found)
    active = found.state in BACKFILL_ACTIVE
    view = _view(found)
    may = {action: policies.backfills.allows(actor, action, found) for action in ACTIONS}
    context = {
        "crumbs": [{"label": "Backfills", "url": reverse("console:backfills")}, {"label": f"Backfill {found.pk}"}],
        **view,
        "page": page_of(request, runs),
        "may": {
            "pause": may["pause"] and found.state == BackfillState.RUNNING,
            "resume": may["resume"] and found.state == BackfillState.PAUSED,
            "cancel": may["cancel"] and active,
            "rerun": may["rerun"] and view["bad"] > 0,
        },
    }
    partials = {"backfill-head": "console/backfills/_head.html", "backfill-runs": "console/runs/_list.html"}
    return show(request, "console/backfills/detail.html", context, partials)


@require_POST
@page
def backfill_action(request: HttpRequest, actor: Actor, backfill_id: int, action: str) -> HttpResponse:
    """Pause, resume, cancel or re-run."""
    if known(action, ACTIONS) == "rerun":
        commands.rerun_backfill(actor=actor, backfill_id=backfill_id)
        messages.success(request, "What failed runs again.")
    elif action == "cancel":
        commands.cancel_backfill(actor=actor, backfill_id=backfill_id)
        messages.success(request, f"Backfill {backfill_id} is cancelled.")
    else:
        act = commands.pause_backfill if action == "pause" else commands.resume_backfill
        act(actor=actor, backfill_id=backfill_id)
    return redirect("console:backfill", backfill_id=backfill_id)


def _workflow(actor: Actor, workflow_id: int) -> Workflow:
    found = policies.workflows.get(actor, "backfill", pk=workflow_id)
    if found.current is None:
        raise Invalid.field("workflow", f"{found.name} has no version yet.", "no_version")
    return found


def _form(workflow: Workflow) -> forms.Form:
    fields = [
        forms.Field("first", "From", "date", help=f"Logical times by the clock of {workflow.timezone}."),
        forms.Field("last", "To", "date", help="All of that day."),
        forms.Field(
            "existing",
            "Times that have a run",
            "select",
            value=Backfill.Existing.NONE,
            choices=[("none", "Leave them"), ("failed", "Again if it failed"), ("completed", "Again if it has ended")],
        ),
        forms.Field(
            "order", "Order", "select", choices=[("forward", "Oldest first"), ("backward", "Newest first")]
        ),
        forms.Field(
            "max_active_runs", "Runs at once", "number", value="4", help="Apart from the workflow's own limit."
        ),
        forms.Field("note", "Note", optional=True, placeholder="Why these run"),
    ]
    return forms.Form({item.name: item for item in fields})


def _moment(values: QueryDict, name: str, zone: ZoneInfo, of_day: time) -> datetime:
    raw = values.get(name, "")
    try:
        return datetime.combine(date.fromisoformat(raw), of_day, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid.field(name, "give a date.", "required" if not raw else "invalid") from None


def _range(values: QueryDict, workflow: Workflow) -> dict[str, Any]:
    zone = ZoneInfo(workflow.timezone)
    return {
        "first": _moment(values, "first", zone, time.min),
        "last": _moment(values, "last", zone, time.max),
        "order": _one_of(values, "order", Backfill.Order.values),
        "existing": _one_of(values, "existing", Backfill.Existing.values),
    }


def _one_of(values: QueryDict, name: str, accepted: list[str]) -> str:
    """One of the accepted values, the first where it is absent. Raises Invalid."""
    value = values.get(name) or accepted[0]
    if value not in accepted:
        raise Invalid.field(name, f"one of {', '.join(accepted)}.", "invalid_choice")
    return value


def _preview(values: QueryDict, workflow: Workflow) -> dict[str, Any]:
    if not (values.get("first") and values.get("last")):
        return {}
    assert workflow.current is not None
    try:
        plan = plan_backfill(workflow, workflow.current, now=timezone.now(), **_range(values, workflow))
    except DomainError as error:
        return {"refused": error.detail}
    return {"plan": plan, "slots": plan.slots[:SHOWN], "more": max(0, len(plan.slots) - SHOWN)}


@require_http_methods(["GET", "HEAD", "POST"])
@page
def backfill_new(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """Make a backfill."""
    workflow = _workflow(actor, workflow_id)
    schema = workflow.current.definition["params"] if workflow.current else {}
    form, params = _form(workflow), forms.params_form(schema)
    if request.method == "POST":
        form.fill(request.POST)
        params.fill(request.POST)
        try:
            cap = request.POST.get("max_active_runs", "")
            if not (cap.isascii() and cap.isdigit() and len(cap) < 6):
                raise Invalid.field("max_active_runs", "a whole number.", "invalid")
            made = commands.create_backfill(
                actor=actor,
                workflow_id=workflow.pk,
                max_active_runs=int(cap),
                params=forms.params_data(schema, request.POST.dict()),
                note=form["note"].value.strip(),
                no_cache="no_cache" in request.POST,
                **_range(request.POST, workflow),
            )
        except DomainError as error:
            form.refuse(error, PATHS)
            if error.errors and form.problems:
                form.problems.clear()
                params.refuse(error, forms.params_paths(schema))
                form.problems += params.problems
        else:
            messages.success(request, f"Backfill {made.backfill.pk} of {workflow.name} makes {made.plan.makes} runs.")
            return redirect("console:backfill", backfill_id=made.backfill.pk)
    refused = bool(form.problems) or any(item.error for each in (form, params) for item in each.fields.values())
    context = {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": workflow.name, "url": reverse("console:workflow", args=[workflow.pk])},
            {"label": "New backfill"},
        ],
        "workflow": workflow,
        "form": form,
        "params": params,
        "caches": any("cache" in task for task in workflow.current.definition["tasks"]) if workflow.current else False,
        "no_cache": "no_cache" in request.POST,
        **_preview(request.POST if request.method == "POST" else request.GET, workflow),
    }
    partials = {"backfill-preview": "console/backfills/_preview.html"}
    return show(request, "console/backfills/new.html", context, partials, status=422 if refused else 200)

