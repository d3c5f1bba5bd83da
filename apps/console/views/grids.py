"""What the browser draws itself: the grid of a workflow's runs, the timeline of a run, and the calendar of days."""

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from apps.core.actors import Actor
from apps.core.errors import Invalid, NotFound
from apps.workflows import policies
from apps.workflows.states import RunState

from .. import queries, run_queries
from ..folding import verdict
from ..pages import number, page, page_of, show, text
from .workflows import head_of, workflow_of

# Years that can be asked for; outside of them a calendar has no such day.
YEARS = (1970, 9000)


@require_safe
@page
def workflow_grid(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """Runs × tasks: the newest, those before the run `?before=`, or those since `?since=`."""
    found = policies.workflows.get(actor, pk=workflow_id)
    made = run_queries.grid(found, before=number(request, "before"), since=number(request, "since"))
    return _fresh(JsonResponse(made))


@require_safe
@page
def run_gantt(request: HttpRequest, actor: Actor, run_id: int) -> HttpResponse:
    """When the tasks of a run (with `?task=` the instances of one) were queued, started and ended."""
    found = policies.runs.get(actor, pk=run_id)
    task = text(request, "task") or None
    made = run_queries.gantt(found, timezone.now(), task)
    if task is not None and not made["names"]:
        raise NotFound(f"Run {run_id} has no task {task} with instances.")
    return _fresh(JsonResponse(made))


def _fresh(answer: HttpResponse) -> HttpResponse:
    answer["Cache-Control"] = "no-store"
    return answer


@require_safe
@page
def workflow_calendar(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """A year of a workflow, a square for each day by how its runs went, and the runs of one day."""
    found = workflow_of(actor, workflow_id)
    today = timezone.now().astimezone(ZoneInfo(found.timezone)).date()
    day = _day(request)
    year = number(request, "year") or (day or run_queries.latest_day(found) or today).year
    if not YEARS[0] <= year <= YEARS[1]:
        raise Invalid.field("year", f"{year} is not a year from {YEARS[0]} to {YEARS[1]}.")
    counted = run_queries.days(found, date(year, 1, 1), date(year, 12, 31))
    context: dict[str, Any] = {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": found.name, "url": reverse("console:workflow", args=[found.pk])},
            {"label": "Calendar"},
        ],
        **head_of(actor, found),
        "view": "calendar",
        "months": _months(year, counted, today),
        "year": year,
        "total": sum(sum(counts.values()) for counts in counted.values()),
        "totals": [(state, sum(counts.get(state, 0) for counts in counted.values())) for state in RunState.values],
        "later": year + 1 if year < today.year else None,
        "earlier": year - 1,
        "day": day,
    }
    if day is not None:
        rows: Any = queries.recent_runs(actor, None).filter(run_queries.runs_of_days(found, day, day))
        context["page"] = page_of(request, rows)
    partials = {"workflow-head": "console/workflows/_head.html", "calendar": "console/workflows/_calendar.html"}
    return show(request, "console/workflows/calendar.html", context, partials)


def _day(request: HttpRequest) -> date | None:
    raw = text(request, "day")
    if not raw:
        return None
    try:
        return date.fromisoformat(raw)
    except ValueError:
        raise Invalid.field("day", f"{raw!r} is not a day such as 2026-01-31.") from None


def _months(year: int, counted: dict[date, dict[str, int]], today: date) -> list[dict[str, Any]]:
    """The months of a year, each a list of weeks of seven days, Monday first; None pads the first and last week."""
    months = []
    for month in range(1, 13):
        first = date(year, month, 1)
        after = date(year + month // 12, month % 12 + 1, 1)
        days: list[dict[str, Any] | None] = [None] * first.weekday()
        days += [
            _square(day, counted.get(day, {}), today)
            for day in (first + timedelta(days=place) for place in range((after - first).days))
        ]
        days += [None] * (-len(days) % 7)
        months.append({"first": first, "weeks": [days[start : start + 7] for start in range(0, len(days), 7)]})
    return months


def _square(day: date, counts: dict[str, int], today: date) -> dict[str, Any]:
    """One day: its worst outcome, and how many of its runs did not succeed, in fifths."""
    total = sum(counts.values())
    good = counts.get(RunState.SUCCEEDED, 0)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return {
        "day": day,
        "state": verdict(counts) if total else "none",
        # In how many fifths of the square the worst outcome is shown; one bad run is one.
        "bad": -(-5 * (total - good) // total) if total else 0,
        "title": f"{day:%d %b %Y}: {told or ('to come' if day > today else 'no run')}",
        "count": total,
        "today": day == today,
    }
