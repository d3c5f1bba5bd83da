"""Dialogs and forms that turn tasks of a run back: clear with its preview, mark, note."""

from collections.abc import Mapping

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from apps.core.actors import Actor
from apps.core.errors import DomainError, Forbidden
from apps.workflows import commands, policies
from apps.workflows.clear_api import clear_answer
from apps.workflows.clearing import Choice, plan_clear
from apps.workflows.models import Run
from apps.workflows.plans import plan_of

from ..forms import several
from ..pages import page

SHOWN = 12
OPTIONS = ("upstream", "downstream", "only_failed", "newest", "from_cache")


def _run(actor: Actor, action: str, run_id: int) -> Run:
    """A run that the actor sees; the dialog is for those who may."""
    run = policies.runs.get(actor, pk=run_id)
    if not policies.runs.allows(actor, action, run):
        raise Forbidden(f"You may look at run {run_id}, but not {action} it.")
    return run


def _choice(values: QueryDict) -> Choice:
    """What the form says: a box that is not sent is off, once the form has been shown (`shown`)."""
    ticked: Mapping[str, bool] = {name: name in values for name in OPTIONS}
    if "shown" not in values:
        ticked = {**ticked, "downstream": True}
    return Choice(tasks=tuple(several(values, "tasks")), **ticked)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def run_clear(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """The dialog that clears tasks: the boxes, and what they mean as they are ticked."""
    run = _run(actor, "clear", run_id)
    if request.method == "POST":
        reason = request.POST.get("reason", "").strip()[:500]
        plan = commands.clear(actor=actor, run_id=run_id, choice=_choice(request.POST), reason=reason)
        messages.success(request, f"{len(plan.units)} of run {run_id} cleared.")
        return redirect("console:run", run_id=run_id)
    choice = _choice(request.GET)
    context = {"run": run, "choice": choice, "newest": run.workflow.current, "rows": [], "shown": SHOWN}
    context["caches"] = bool(plan_of(run.version_id).cached)
    try:
        plan = plan_clear(run, choice)
    except DomainError as error:
        context["refused"] = error.detail
    else:
        context["plan"], context["told"] = plan, clear_answer(plan)
        context["rows"] = plan.units[:SHOWN]
        context["more"] = max(0, len(plan.units) - SHOWN)
    template = "console/runs/_clear_preview.html" if "shown" in request.GET else "console/runs/_clear.html"
    answer = render(request, template, context)
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@page
def run_mark(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """Mark a task or an instance."""
    state, tasks = request.POST.get("state", ""), several(request.POST, "tasks")
    commands.mark(actor=actor, run_id=run_id, tasks=tasks, state=state)
    messages.success(request, f"{', '.join(tasks)} of run {run_id} marked {state}.")
    return redirect("console:run", run_id=run_id)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def run_note(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """The dialog with the note of a run."""
    run = _run(actor, "note", run_id)
    if request.method == "POST":
        commands.note_run(actor=actor, run_id=run_id, note=request.POST.get("note", "").replace("\x00", "").strip())
        return redirect("console:run", run_id=run_id)
    answer = render(request, "console/runs/_note.html", {"run": run})
    answer["Cache-Control"] = "no-store"
    return answer
