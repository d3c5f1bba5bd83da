"""What if: a question put together as a form, decided by the scheduler's own code, and shown against what is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_http_methods
from rest_framework.exceptions import ValidationError

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid
from apps.core.problems import field_errors
from apps.fleet import policies as fleet_policies
from apps.fleet.models import Flavor
from apps.fleet.queries import list_clusters, list_pools
from apps.fleet.states import NodeState
from apps.jobs import policies as job_policies
from apps.quotas.models import OVER_TIME, Measure
from apps.quotas.queries import list_quotas
from apps.scheduling.policies import simulations
from apps.scheduling.simulation import Answer, Course, Simulated, simulate_changes
from apps.scheduling.simulation_api import SimulateBody
from apps.tenants.models import Tenant

from .. import figures, whatif_forms
from ..context import visible_tenants
from ..pages import number, page, show
from .budgets import budgets_of

SHOWN = 100
STARTS = 40


@require_http_methods(["GET", "HEAD", "POST"])
@page
def what_if(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The form; with an answer once it was asked. `?job=` begins with another job like that one."""
    known = _known(request, actor)
    form = whatif_forms.question(known)
    context: dict[str, Any] = {"crumbs": [{"label": "What if"}], "form": form, "known": known}
    status = 200
    if request.method == "POST":
        focus = _digits(request.POST.get("focus", ""))
        try:
            whatif_forms.fill(form, request.POST, known)
            context["answer"] = _told(_answer(actor, form), focus)
        except DomainError as error:
            whatif_forms.refuse(form, error)
            status = 422
    else:
        focus = number(request, "job")
        if focus is not None:
            job_policies.jobs.get(actor, pk=focus)
            made = whatif_forms.row("0", whatif_forms.KINDS["job"], known)
            made.fields["like"].value = str(focus)
            form.rows.append(made)
    context["focus"] = focus
    context["next"] = max((int(row.number) for row in form.rows), default=-1) + 1
    return show(request, "console/whatif/page.html", context, status=status)


def _known(request: HttpRequest, actor: Actor) -> whatif_forms.Known:
    """What the actor may name in a question."""
    everything = simulations.sees_all(actor)
    most = whatif_forms.NAMES_MAX + 1
    nodes = fleet_policies.nodes.visible(actor).exclude(state=NodeState.REMOVED).order_by("name")
    binding = budgets_of(actor, Q(hard=True, measure__in=[*OVER_TIME, Measure.RUNNING])).order_by("pk")
    return whatif_forms.Known(
        tenants=[(tenant.slug, tenant.name) for tenant in visible_tenants(request, actor)],
        pools=[pool.name for pool in list_pools(actor)],
        nodes=list(nodes.values_list("name", flat=True)[:most]) if everything else (),
        clusters=[cluster.name for cluster in list_clusters(actor).order_by("name")[:most]] if everything else (),
        quotas=list(list_quotas(actor).order_by("name").values_list("name", flat=True)[:most]),
        budgets=[
            (str(budget.pk), str(budget))
            for budget in binding[:most]
            if simulations.allows(actor, "simulate_budget", budget)
        ],
        flavors=list(Flavor.objects.order_by("name").values_list("name", flat=True).distinct()[:most]),
        everything=everything,
    )


def _answer(actor: Actor, form: whatif_forms.Question) -> Answer:
    asked = [row.fields["like"].value for row in form.rows if row.kind.name == "job"]
    wanted = [pk for value in asked if (pk := _digits(value)) is not None]
    likes = {job.pk: job for job in job_policies.jobs.visible(actor).filter(pk__in=wanted).select_related("tenant")}
    body = SimulateBody(data=whatif_forms.request_of(form, likes))
    try:
        body.is_valid(raise_exception=True)
    except ValidationError as error:
        faults = list(field_errors(error.detail))
        raise Invalid(faults[0]["message"], errors=faults) from None
    return simulate_changes(actor=actor, request=body.validated_data, now=timezone.now())


def _digits(raw: object) -> int | None:
    text = str(raw).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@dataclass(frozen=True, slots=True)
class Told:
    """A job of an answer: `later` is by how many seconds the changes move its start (negative: earlier)."""

    row: Simulated
    tenant: str
    later: float | None
    verdict: str

    @property
    def by(self) -> float:
        """Seconds of difference, whichever way."""
        return abs(self.later or 0.0)

    @property
    def evicted_for(self) -> list[int]:
        """Jobs that may be named; how many it was evicted for in all is the length of the row's own list."""
        return [job for job in (self.row.after.evicted_for if self.row.after else ()) if job is not None]


def _told(answer: Answer, focus: int | None) -> dict[str, Any]:
    """The answer as the page shows it: what is made up and what was asked about first, then who is worst off."""
    slugs = dict(Tenant.objects.filter(pk__in={row.tenant for row in answer.jobs}).values_list("pk", "slug"))
    rows = [_row(row, slugs.get(row.tenant, ""), answer.until) for row in answer.jobs]
    rows.sort(key=lambda told: (told.row.number != focus, told.row.number is not None, not told.row.changed,
                                -abs(told.later or 0)))  # fmt: skip
    moves = _moves(rows[:STARTS])
    changed = [told for told in rows if told.row.changed and told.row.number is not None]
    return {
        "answer": answer,
        "rows": rows[:SHOWN],
        "rest": max(0, answer.total - SHOWN),
        "later": sum(told.verdict == "later" for told in changed),
        "earlier": sum(told.verdict == "earlier" for told in changed),
        "evicted": sum(bool(told.row.after and told.row.after.evicted_for) for told in changed),
        "tiles": _tiles(answer),
        "use": [
            {"resource": name, "figure": figures.use_over_time(answer.use.at, answer.use.before[name], parts)}
            for name, parts in answer.use.after.items()
            if any(parts) or any(answer.use.before[name])
        ] if answer.use is not None else [],
        "starts": figures.starts(moves) if moves else None,
        # The height of that figure, in steps of eight lines.
        "size": -(-len(moves) // 8),
    }  # fmt: skip


def _row(row: Simulated, tenant: str, until: datetime) -> Told:
    before, after = row.before, row.after
    if before is None:
        return Told(row, tenant, None, "new")
    if after is None or (before.starts_at is None and after.starts_at is None):
        return Told(row, tenant, None, "same" if not row.changed else "other")
    later = ((after.starts_at or until) - (before.starts_at or until)).total_seconds()
    verdict = "later" if later >= 1 else "earlier" if later <= -1 else "other" if row.changed else "same"
    return Told(row, tenant, later, verdict)


def _moves(rows: list[Told]) -> list[tuple[str, datetime | None, datetime | None]]:
    """Each job with its start as it is and with the changes."""

    def start(course: Course | None) -> datetime | None:
        return course.starts_at if course is not None else None

    return [
        (f"{told.row.name} #{told.row.number}" if told.row.number else told.row.name, start(told.row.before),
         start(told.row.after))
        for told in rows
        if start(told.row.before) is not None or start(told.row.after) is not None
    ]  # fmt: skip


def _tiles(answer: Answer) -> list[Mapping[str, Any]]:
    """Figures of the whole, as it is and with the changes; `better` says which way is good."""
    if answer.before is None or answer.after is None:
        return []
    tiles = [
        ("Mean wait", answer.before.wait_mean, answer.after.wait_mean, "seconds", -1),
        ("95 of 100 wait less than", answer.before.wait_p95, answer.after.wait_p95, "seconds", -1),
        ("Started", answer.before.started, answer.after.started, "count", 1),
        ("Evictions", answer.before.evictions, answer.after.evictions, "count", -1),
        ("Fairness", answer.before.fairness, answer.after.fairness, "ratio", 1),
    ]
    return [
        {
            "label": label,
            "before": before,
            "after": after,
            "unit": unit,
            "state": "" if abs(after - before) < 0.005 else "succeeded" if (after - before) * sign > 0 else "failed",
        }
        for label, before, after, unit, sign in tiles
    ]
