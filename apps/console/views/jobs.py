"""Jobs: the list, one job with its log, the queue with its reasons, and the form that submits one."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError
from apps.events.queries import events_of
from apps.execution.queries import job_artifacts, job_checkpoints
from apps.fleet.queries import list_pools
from apps.jobs import commands, policies
from apps.jobs.consumption import cost_of
from apps.jobs.labels import LABEL, LABELS_MAX, labelled
from apps.jobs.models import Attempt, Job, Placement
from apps.jobs.states import JobState
from apps.scheduling.fitting import fits
from apps.scheduling.queries import queued_now, recent_cycles, why
from apps.services import policies as service_policies
from apps.services.models import Service
from apps.tenants import policies as tenant_policies
from apps.tenants.queries import tenant_named
from apps.workflows.models import Task
from engine.reasons import Reason
from rmctl.spec import SpecError, parse_job

from .. import forms, group_fields, placement_fields, queries
from ..context import chosen_tenant, visible_tenants
from ..pages import choice, known, number, page, page_of, show, text

ATTEMPTS = 10
RANKS = 64
EVENTS = 20
QUEUE = 200
# What made a job, by the beginning of its `origin`; people's own jobs have none.
ORIGINS = {"people": "", "workflows": "run:", "services": "service:"}
TABS = (
    ("", "All"),
    (JobState.PENDING, "Pending"),
    (JobState.RUNNING, "Running"),
    (JobState.SUCCEEDED, "Succeeded"),
    (JobState.FAILED, "Failed"),
    (JobState.CANCELLED, "Cancelled"),
)


@require_safe
@page
def jobs(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Jobs, newest first, by state, words, owner and origin."""
    tenant = chosen_tenant(request, actor)
    state = choice(request, "state", JobState.values)
    origin = choice(request, "origin", tuple(ORIGINS))
    words = text(request, "q")
    wanted = text(request, "label").replace(",", " ").split()
    wrong = next((label for label in wanted[:LABELS_MAX] if not LABEL.fullmatch(label)), None)
    rows, scans = queries.search_jobs(queries.visible_jobs(actor, tenant), words)
    rows = rows.none() if wrong else labelled(rows, wanted[:LABELS_MAX])
    rows = rows.select_related("tenant", "owner").defer("spec", "tried", "result")
    if state:
        rows = rows.filter(state=state)
    if origin:
        made_by = ORIGINS[origin]
        rows = rows.filter(origin__startswith=made_by) if made_by else rows.filter(origin="")
        scans = scans or bool(made_by)
    if choice(request, "owner", ("me",)):
        rows = rows.filter(owner_id=actor.user_id)
    counts = queries.job_counts(actor, tenant)
    context = {
        "crumbs": [{"label": "Jobs"}],
        "page": page_of(request, rows, scans=scans),
        "tabs_of_states": [(value, label, counts.get(value)) for value, label in TABS],
        "state": state,
        "wrong_label": wrong,
        "topics": _list_topics(request, actor),
    }
    return show(request, "console/jobs/page.html", context, {"job-list": "console/jobs/_list.html"})


def _list_topics(request: HttpRequest, actor: Actor) -> str:
    """What announces changes of the jobs that the actor sees: one topic, or those of their tenants."""
    tenant = chosen_tenant(request, actor)
    if tenant is not None:
        return f"tenant:{tenant.pk}"
    if actor.operator or actor.auditor:
        return "queue events"
    return " ".join(f"tenant:{item.pk}" for item in visible_tenants(request, actor))


def _job(actor: Actor, job_id: int) -> Job:
    rows = policies.jobs.visible(actor).select_related("tenant", "owner")
    return rows.filter(pk=job_id).first() or policies.jobs.get(actor, pk=job_id)


@require_safe
@page
def job(request: HttpRequest, actor: Actor, job_id: int) -> HttpResponse:
    """One job: its life so far, why it waits, where it runs under which limits, its log and what it left."""
    found = _job(actor, job_id)
    placements = Placement.objects.select_related("node").order_by("group", "rank")
    attempts = list(
        Attempt.objects.filter(job=found)
        .select_related("grant")
        .prefetch_related(Prefetch("placements", placements))
        .order_by("-token")[:ATTEMPTS]
    )
    shown = _shown_placement(request, attempts)
    run_id = found.origin.removeprefix("run:") if found.origin.startswith("run:") else ""
    context = {
        "crumbs": [{"label": "Jobs", "url": reverse("console:jobs")}, {"label": f"{found.name} #{found.pk}"}],
        "job": found,
        "steps": _steps(found, attempts),
        "why": explained(actor, found),
        "attempts": attempts,
        "ranks": RANKS,
        "shown": shown,
        "cost": cost_of(found.grants.all(), timezone.now()),
        "artifacts": job_artifacts(actor, found.pk),
        "checkpoints": job_checkpoints(actor, found.pk)[:RANKS],
        "events": events_of(actor, "job", found.pk)[:EVENTS],
        "run_id": run_id,
        "task": Task.objects.filter(job=found).first() if run_id else None,
        "replica": found.origin.startswith("service:"),
        "service": _service_of(actor, found),
        "may": {action: policies.jobs.allows(actor, action, found) for action in ("cancel", "hold", "release")},
        "may_submit": tenant_policies.tenants.allows(actor, "submit", found.tenant),
    }
    partials = {
        "job-head": "console/jobs/_head.html",
        "job-body": "console/jobs/_body.html",
        "job-side": "console/jobs/_side.html",
    }
    return show(request, "console/jobs/detail.html", context, partials)


def _service_of(actor: Actor, job: Job) -> Service | None:
    """The service that the job is a replica of; none for other jobs, and where the service was removed."""
    kind, _, key = job.origin.partition(":")
    return service_policies.services.visible(actor).filter(pk=int(key)).first() if kind == "service" else None


def _shown_placement(request: HttpRequest, attempts: list[Attempt]) -> Placement | None:
    """The member whose log is shown: the asked one, else the first of the newest attempt."""
    token, rank, group = (
        number(request, "attempt"),
        number(request, "rank") or 0,
        number(request, "group") or 0,
    )
    attempt = next((item for item in attempts if token in (None, item.token)), None)
    if attempt is None:
        return None
    members = attempt.placements.all()
    return next((item for item in members if (item.group, item.rank) == (group, rank)), None)


def _steps(job: Job, attempts: list[Attempt]) -> list[dict[str, Any]]:
    """The lifecycle as a line of points: each done (with how long after the one before), now, or to come."""
    newest = attempts[0] if attempts and job.state != JobState.PENDING else None
    waiting = job.state == JobState.PENDING
    started = job.started_at if newest and job.state != JobState.GRANTED else None
    points = [
        ("Submitted", job.submitted_at),
        ("Queued" if waiting else "Granted", newest.created_at if newest else None),
        ("Running" if started or not newest else "Starting", started),
        (job.get_state_display() if job.ended_at else "Ended", job.ended_at),
    ]
    steps: list[dict[str, Any]] = []
    before = job.submitted_at
    for index, (name, at) in enumerate(points):
        step: dict[str, Any] = {"name": name, "at": at, "is": "done" if at else "", "state": "succeeded", "after": None}
        if at and index:
            step["after"] = max(0.0, (at - before).total_seconds())
            before = at
        steps.append(step)
    if job.ended_at:
        steps[-1]["state"] = job.state
    else:
        # The first point that has not come yet is where it is now; a running job is at its last one.
        place = next(index for index, step in enumerate(steps) if not step["at"])
        place = place - 1 if job.state in (JobState.RUNNING, JobState.CANCELLING) else place
        steps[place] |= {"is": "now", "state": job.state, "since": before, "after": None}
    return steps


def explained(actor: Actor, job: Job) -> dict[str, Any] | None:
    """Why the job is where it is, with each funnel ready to draw; nothing for a job that has ended."""
    if job.ended_at is not None:
        return None
    found = why(actor, job.pk)
    tried = []
    for entry in found.tried:
        steps = entry.get("funnel") or []
        total = steps[0]["remaining"] + steps[0]["rejected"] if steps else 0
        tried.append({**entry, "total": total})
    return {
        "reason": found.reason,
        "title": found.title,
        "detail": found.detail,
        "position": found.position,
        "outlook": found.outlook,
        "terms": queries.order_rows(found.outlook),
        "reach": queries.reach_words(found.outlook),
        "reserved_at": found.reserved_at,
        "tried": tried,
        "suggestions": [item.text.removesuffix(": now") for item in found.suggestions],
    }


@require_POST
@page
def job_action(request: HttpRequest, actor: Actor, job_id: int, action: str) -> HttpResponse:
    """Cancel, hold or release a job."""
    if known(action, ("cancel", "hold", "release")) == "cancel":
        commands.cancel(actor=actor, job_id=job_id, reason=request.POST.get("reason", "")[:500])
    elif action == "hold":
        commands.hold(actor=actor, job_id=job_id)
    else:
        commands.release(actor=actor, job_id=job_id)
    said = {"cancel": "is being cancelled", "hold": "is on hold", "release": "is in the queue again"}
    messages.success(request, f"Job {job_id} {said[action]}.")
    return redirect("console:job", job_id=job_id)


@require_safe
@page
def queue(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Pending jobs in their order, each with its reason; and how the scheduler's last cycles went."""
    tenant = chosen_tenant(request, actor)
    reason = choice(request, "reason", [item.value for item in Reason])
    rows = queries.visible_jobs(actor, tenant).filter(state=JobState.PENDING).select_related("tenant")
    if reason:
        rows = rows.filter(reason=reason)
    reasons = queries.pending_reasons(actor, tenant)
    pending = queries.queue_rows(rows.defer("spec", "result"), queued_now(), QUEUE)
    context = {
        "crumbs": [{"label": "Queue"}],
        "reasons": reasons,
        "total": sum(item.count for item in reasons),
        "reason": reason,
        "pending": pending,
        "cycles": recent_cycles()[:8],
        "limit": QUEUE,
    }
    return show(request, "console/queue/page.html", context, {"queue-list": "console/queue/_list.html"})


def _fit(request: HttpRequest, actor: Actor, values: dict[str, str], form: forms.JobForm) -> HttpResponse:
    """How many nodes fit what has been typed so far; nothing is submitted."""
    context: dict[str, Any] = {}
    try:
        tenant = tenant_named(actor, values.get("tenant"))
        tenant_policies.tenants.require(actor, "submit", tenant)
        data = forms.job_data(values)
        for group in data["groups"]:
            if not group.get("script") and not group.get("command"):
                group["script"] = "true"  # What runs does not matter to where it fits.
        context["fits"] = fits(tenant, parse_job(data).normalised(), timezone.now())
    except DomainError as error:
        context["unclear"] = error.errors[0]["message"] if error.errors else error.detail
    except SpecError as error:
        fault = error.errors[0]
        groups = form.groups if len(form.groups) > 1 else []
        of = [f"Group {item.fields['group'].value}: " for item in groups if fault["field"].startswith(item.path)]
        context["unclear"] = "".join(of) + fault["message"]
    return render(request, "console/jobs/_fit.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def job_submit(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The form of a job; refusals stand beside their fields and everything typed stays."""
    tenants = [
        (tenant.slug, tenant.name)
        for tenant in visible_tenants(request, actor)
        if tenant_policies.tenants.allows(actor, "submit", tenant)
    ]
    pools = [pool.name for pool in list_pools(actor)]
    status = 200
    if request.method == "POST" and (change := request.POST.get("change")):
        values = group_fields.changed(request.POST.dict(), change)
        form = _filled(tenants, pools, values)
        form.groups[-1].fields["group"].focus = change == "add"
    elif request.method == "POST":
        values = request.POST.dict()
        form = _filled(tenants, pools, values)
        if request.headers.get("HX-Target") == "job-fit":
            return _fit(request, actor, values, form)
        try:
            tenant = tenant_named(actor, values.get("tenant"))
            made = commands.submit(actor=actor, tenant=tenant, data=forms.job_data(values))
        except DomainError as error:
            form.refuse(error, forms.job_paths(len(form.groups)))
            status = 422
        else:
            messages.success(request, f"Job {made.pk} is submitted.")
            return redirect("console:job", job_id=made.pk)
    else:
        source = number(request, "from")
        chosen = chosen_tenant(request, actor)
        if source is not None:
            earlier = _job(actor, source)
            form = _filled(tenants, pools, {**forms.job_values(earlier.spec), "tenant": earlier.tenant.slug})
        else:
            form = _filled(tenants, pools, {} if chosen is None else {"tenant": chosen.slug})
    context = {
        "crumbs": [{"label": "Jobs", "url": reverse("console:jobs")}, {"label": "Submit a job"}],
        "form": form,
        "one": form.groups[0] if len(form.groups) == 1 else None,
        "placement_open": any(form[name].value or form[name].error for name in placement_fields.PATHS),
        "may_submit": bool(tenants),
    }
    return show(request, "console/jobs/submit.html", context, status=status)


def _filled(tenants: Sequence[tuple[str, str]], pools: Sequence[str], values: Mapping[str, str]) -> forms.JobForm:
    form = forms.job_form(tenants, pools, group_fields.count_of(values))
    form.fill(values)
    return form
