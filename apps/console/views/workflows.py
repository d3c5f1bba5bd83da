"""Workflows and runs: lists, the graph of a version, the graph of a run as it goes, triggering and cancelling."""

from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Window
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, NotFound
from apps.workflows import commands, policies
from apps.workflows.cache_queries import hit_rates
from apps.workflows.datasets import triggering, waiting_of
from apps.workflows.models import Deadline, Run, Task, Workflow
from apps.workflows.paths import longest_path
from apps.workflows.queries import count_states, missed_deadlines
from apps.workflows.states import TASK_ACTIVE, RunState, TaskState
from apps.workflows.timetable import due
from rmctl.spec.datasets import words as condition_words

from .. import forms, graphs, queries, run_queries
from ..context import chosen_tenant
from ..pages import choice, known, numbered_page, page, page_of, show, text
from .budgets import budget_rows, budgets_of, may_budget
from .tasks import task_context

STRIP = 24
# Tasks of a run on one page of their list.
TASKS = 50
# What the head of a workflow's pages offers.
ACTIONS = ("trigger", "pause", "resume", "backfill")
UPCOMING = 5
SHOWN_EVENTS = 20
SHOWN_MISSED = 5
RUN_TABS = (
    ("", "All"),
    (RunState.RUNNING, "Running"),
    (RunState.QUEUED, "Queued"),
    (RunState.SUCCEEDED, "Succeeded"),
    (RunState.FAILED, "Failed"),
    (RunState.CANCELLED, "Cancelled"),
)


@require_safe
@page
def workflows(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Workflows with their schedule and how their latest runs went."""
    rows = queries.narrowed(policies.workflows.visible(actor), chosen_tenant(request, actor))
    words = text(request, "q")
    if words:
        rows = rows.filter(name__icontains=words)
    rows = rows.select_related("tenant", "current").defer("current__definition")
    found = numbered_page(request, rows, "name", "pk")
    latest = queries.latest_runs(actor, found.rows, STRIP)
    context = {
        "crumbs": [{"label": "Workflows"}],
        "page": found,
        "rows": [{"workflow": item, "bars": latest.get(item.pk, [])} for item in found.rows],
    }
    return show(request, "console/workflows/page.html", context, {"workflow-list": "console/workflows/_list.html"})


def workflow_of(actor: Actor, workflow_id: int) -> Workflow:
    rows = policies.workflows.visible(actor).select_related("tenant", "current")
    found = rows.filter(pk=workflow_id).first()
    if found is None:
        raise NotFound(f"There is no workflow {workflow_id} that you can see.")
    return found


def head_of(actor: Actor, found: Workflow) -> dict[str, Any]:
    """What the head of each of a workflow's pages shows."""
    return {
        "workflow": found,
        "upcoming": list(islice(due(found, timezone.now()), UPCOMING)),
        "zone": ZoneInfo(found.timezone),
        "waiting": waiting_of(found),
        "condition": condition_words(found.current.definition.get("datasets") or "") if found.current else "",
        "may": {action: policies.workflows.allows(actor, action, found) for action in ACTIONS},
    }


@require_safe
@page
def workflow(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """One workflow: its graph, its runs, its versions, and the form that triggers it."""
    return _show_workflow(request, actor, workflow_of(actor, workflow_id), None)


def _show_workflow(request: HttpRequest, actor: Actor, found: Workflow, form: forms.Form | None) -> HttpResponse:
    runs = queries.recent_runs(actor, None).filter(workflow=found)
    schema = found.current.definition["params"] if found.current else {}
    caches = found.current is not None and any("cache" in task for task in found.current.definition["tasks"])
    context = {
        "crumbs": [{"label": "Workflows", "url": reverse("console:workflows")}, {"label": found.name}],
        **head_of(actor, found),
        "page": page_of(request, runs, 20),
        "form": form or forms.params_form(schema),
        "opened": form is not None,
        "budgets": budget_rows(actor, budgets_of(actor, Q(tenant=found.tenant_id, workflow=found.name))),
        "may_budget": may_budget(actor, found.tenant),
        "caches": caches,
        "rates": hit_rates(found) if caches else [],
    }
    partials = {
        "workflow-head": "console/workflows/_head.html",
        "workflow-runs": "console/workflows/_runs.html",
    }
    return show(request, "console/workflows/detail.html", context, partials, status=422 if form else 200)


@require_safe
@page
def workflow_graph(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """The graph of the current version."""
    found = policies.workflows.get(actor, pk=workflow_id)
    if found.current_id is None:
        raise NotFound(f"Workflow {found.name} has no version yet.")
    opened = opened_groups(request)
    return JsonResponse(run_queries.version_graph(found.current_id, None if opened is None else tuple(opened)))


def opened_groups(request: HttpRequest) -> list[str] | None:
    """The groups of a graph that are open, where the query says so; `open=` alone is none of them."""
    return request.GET.getlist("open") if "open" in request.GET else None


@require_POST
@page
def workflow_action(request: HttpRequest, actor: Actor, workflow_id: int, action: str) -> HttpResponse:
    """Trigger, pause or resume a workflow; wrong parameters stand beside their fields."""
    if known(action, ("trigger", "pause", "resume")) == "trigger":
        return _trigger(request, actor, workflow_of(actor, workflow_id))
    if action == "pause":
        changed = commands.pause(actor=actor, workflow_id=workflow_id)
        messages.success(request, f"{changed.name} is paused: its timetable makes no new runs.")
    else:
        changed = commands.resume(actor=actor, workflow_id=workflow_id)
        messages.success(request, f"{changed.name} follows its timetable again.")
    return redirect("console:workflow", workflow_id=workflow_id)


def _trigger(request: HttpRequest, actor: Actor, found: Workflow) -> HttpResponse:
    schema = found.current.definition["params"] if found.current else {}
    values = request.POST.dict()
    try:
        params = forms.params_data(schema, values)
        run = commands.trigger(
            actor=actor,
            workflow_id=found.pk,
            params=params,
            note=values.get("note", ""),
            no_cache="no_cache" in values,
        )
    except DomainError as error:
        form = forms.params_form(schema)
        form.fill(values)
        form.refuse(error, forms.params_paths(schema))
        return _show_workflow(request, actor, found, form)
    messages.success(request, f"Run {run.pk} of {found.name} is queued.")
    return redirect("console:run", run_id=run.pk)


@require_safe
@page
def runs(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Runs of every workflow, newest first."""
    state = choice(request, "state", RunState.values)
    words = text(request, "q")
    rows = queries.recent_runs(actor, chosen_tenant(request, actor))
    if state:
        rows = rows.filter(state=state)
    if words:
        rows = rows.filter(workflow__name__icontains=words)
    context = {
        "crumbs": [{"label": "Runs"}],
        "page": page_of(request, rows),
        "state": state,
        "tabs_of_states": [(value, label, None) for value, label in RUN_TABS],
    }
    return show(request, "console/runs/page.html", context, {"run-list": "console/runs/_list.html"})


def run_of(actor: Actor, run_id: int) -> Run:
    rows = policies.runs.visible(actor).select_related("workflow", "tenant", "owner", "version", "note_by")
    rows = rows.defer("version__definition").annotate(late=Exists(missed_deadlines(OuterRef("pk"))))
    found = rows.filter(pk=run_id).first()
    if found is None:
        raise NotFound(f"There is no run {run_id} that you can see.")
    return found


def run_head_of(actor: Actor, found: Run) -> dict[str, Any]:
    """What the head of each of a run's pages shows."""
    counts = count_states([found.pk])[found.pk]
    total = sum(counts.values())
    late: list[Any] = list(_missed(found)) if found.late else []  # type: ignore[attr-defined]
    return {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": found.workflow.name, "url": reverse("console:workflow", args=[found.workflow_id])},
            {"label": f"Run {found.pk}"},
        ],
        "run": found,
        "zone": ZoneInfo(found.workflow.timezone),
        "missed": late,
        "more_missed": late[0].total - len(late) if late else 0,
        "triggered_by": triggering(found)[:SHOWN_EVENTS] if found.trigger == Run.Trigger.DATASET else [],
        "counts": counts,
        "total": total,
        "bad": sum(counts.get(state, 0) for state in ("failed", "upstream_failed", "cancelled")),
        "ended": total - sum(counts.get(state, 0) for state in TASK_ACTIVE),
        "path": longest_path(found, timezone.now()),
        "may": {action: policies.runs.allows(actor, action, found) for action in ("clear", "note")},
        "may_cancel": policies.runs.allows(actor, "cancel", found) and found.ended_at is None,
        "may_trigger": policies.workflows.allows(actor, "trigger", found.workflow),
    }


def _missed(found: Run) -> QuerySet[Deadline]:
    """Its time limit, then the first deadlines that passed, each with how many there are in `total`."""
    rows = missed_deadlines(found.pk).annotate(total=Window(Count("pk")))
    return rows.order_by("-kind", "missed_at", "pk")[:SHOWN_MISSED]


@require_safe
@page
def run(request: HttpRequest, actor: Actor, run_id: int, view: str = "graph") -> HttpResponse:
    """One run: its progress, its tasks, and its graph or its timeline."""
    found = run_of(actor, run_id)
    state, words = choice(request, "task_state", TaskState.values), text(request, "q")
    rows = Task.objects.filter(run=found, index=-1)
    if state:
        rows = rows.filter(state=state)
    if words:
        rows = rows.filter(name__icontains=words)
    listed = numbered_page(request, rows.only("pk"), "pk", size=TASKS)
    tasks = Task.objects.filter(pk__in=[task.pk for task in listed]).order_by("pk")
    context = {
        **run_head_of(actor, found),
        "page": listed,
        "tasks": run_queries.task_views(found, tasks),
        "task_states": [(value, value.replace("_", " ")) for value in TaskState.values],
        "view": view,
        **(task_context(actor, found, asked, request) if (asked := text(request, "task")) else {}),
    }
    partials = {"run-head": "console/runs/_head.html", "run-tasks": "console/runs/_tasks.html"}
    return show(request, "console/runs/detail.html", context, partials)


@require_safe
@page
def run_graph(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """The graph of a run with the present state of each task."""
    found = run_of(actor, run_id)
    tasks = run_queries.task_views(found, Task.objects.filter(run=found, index=-1).order_by("pk"))
    panel = reverse("console:run-task", args=[found.pk, "task"]).rpartition("task/")[0]
    panels = {task.name: f"{panel}{task.name}/" for task in tasks}
    known = run_queries.topology(found.version_id)
    now = timezone.now()
    path = longest_path(found, now)
    drawn = graphs.of_run(
        known.edges, known.groups, tasks, panels, now, opened_groups(request), path.chain if path else ()
    )
    answer = JsonResponse(drawn)
    answer["Cache-Control"] = "no-store"
    return answer


@require_safe
@page
def run_task(request: HttpRequest, actor: Actor, run_id: int, name: str) -> HttpResponse:
    """The panel of one task: its instances, or its job with what it got, ran, said and gave."""
    found = run_of(actor, run_id)
    return show(request, "console/runs/_task.html", task_context(actor, found, name, request))


@require_POST
@page
def run_cancel(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """End a run now."""
    commands.cancel_run(actor=actor, run_id=run_id)
    messages.success(request, f"Run {run_id} is cancelled.")
    return redirect("console:run", run_id=run_id)
