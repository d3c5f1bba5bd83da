"""The questions that tasks ask people: what waits for whoever looks, all of them, and the form that answers one."""

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError
from apps.workflows import commands, policies
from apps.workflows.approvals import approval_of, asked, list_approvals
from apps.workflows.models import Approval, Run

from .. import forms, queries
from ..context import chosen_tenant
from ..pages import choice, page, page_of, show

TABS = (
    ("", "Waiting for you"),
    ("open", "All open"),
    ("answered", "Answered"),
    ("expired", "Expired"),
    ("closed", "Closed"),
)


def questions_of(actor: Actor, run: Run, task: str) -> list[Approval]:
    """What a task of a run has asked, the latest first."""
    rows = list_approvals(actor).filter(task__run=run, task__name=task)
    return list(rows[:20])


@require_safe
@page
def approvals(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Questions in a state; without one those that wait for whoever looks."""
    state = choice(request, "state", Approval.State.values)
    rows: QuerySet[Approval] = queries.narrowed(list_approvals(actor), chosen_tenant(request, actor))
    rows = rows.filter(state=state) if state else asked(actor, rows)
    context = {
        "crumbs": [{"label": "Approvals"}],
        "page": page_of(request, rows),
        "state": state,
        "tabs_of_states": [(value, label, None) for value, label in TABS],
    }
    return show(request, "console/approvals/page.html", context, {"approval-list": "console/approvals/_list.html"})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def approval(request: HttpRequest, actor: Actor, approval_id: int) -> HttpResponse:
    """One question with its form; a wrong value stands beside its field."""
    found = approval_of(actor, approval_id)
    form = forms.params_form(found.form)
    if request.method != "POST":
        return _show(request, actor, found, form)
    values = request.POST.dict()
    option, comment = values.get("option", ""), values.get("comment", "")
    paths = forms.params_paths(found.form)
    try:
        given = forms.params_data(found.form, values)
        paths = {name: f"values.{name}" for name in paths}
        commands.answer_approval(
            actor=actor, approval_id=approval_id, option=option, values=given, comment=comment
        )
    except DomainError as error:
        form.fill(values)
        form.refuse(error, paths)
        return _show(request, actor, approval_of(actor, approval_id), form, comment, status=422)
    messages.success(request, f"{found.subject}: {option}. Run {found.task.run_id} goes on.")
    return redirect("console:approval", approval_id=approval_id)


def _show(
    request: HttpRequest, actor: Actor, found: Approval, form: forms.Form, comment: str = "", status: int = 200
) -> HttpResponse:
    run = found.task.run
    context: dict[str, Any] = {
        "crumbs": [
            {"label": "Approvals", "url": reverse("console:approvals")},
            {"label": run.workflow.name, "url": reverse("console:workflow", args=[run.workflow_id])},
            {"label": f"Run {run.pk}", "url": reverse("console:run", args=[run.pk])},
            {"label": str(found.task)},
        ],
        "approval": found,
        "form": form,
        "comment": comment,
        "may_answer": found.state == Approval.State.OPEN and policies.approvals.allows(actor, "answer", found),
    }
    return show(request, "console/approvals/detail.html", context, status=status)
