"""Which logical times a backfill covers, and what it does with each: for its preview and for making its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from apps.core.errors import Invalid
from rmctl.spec.schedule import CONTINUOUS

from .costs import Estimate, of_times, usual
from .models import Backfill, Run, Workflow, WorkflowVersion
from .plans import plan_of
from .states import RUN_ACTIVE, RunState
from .timetable import YEARS, Interval, Timetable, start_of

# Logical times of one backfill.
TIMES_MAX = 10_000

# The states of a time's latest run in which each rule makes another one.
_AGAIN = {
    Backfill.Existing.NONE: frozenset(),
    Backfill.Existing.FAILED: frozenset({RunState.FAILED, RunState.CANCELLED}),
    Backfill.Existing.COMPLETED: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A logical time, the latest run that it has already, and whether the backfill makes one."""

    logical_time: datetime
    run: int | None
    state: str | None
    makes: bool

    @property
    def action(self) -> str:
        """`run`, `run again`, or why not: `exists`, `is active`."""
        if self.makes:
            return "run" if self.run is None else "run again"
        return "is active" if self.state in RUN_ACTIVE else "exists"


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would do now, in its order; `first` and `last` are the first and the last time it covers."""

    version: WorkflowVersion
    first: datetime
    last: datetime
    slots: tuple[Slot, ...]
    estimate: Estimate

    @property
    def makes(self) -> int:
        """How many runs it would make."""
        return sum(slot.makes for slot in self.slots)


@lru_cache(maxsize=16)
def _table(schedule: str, zone: str, start_date: str | None) -> Timetable:
    return Timetable(schedule, zone, anchor=start_of(start_date, zone))


@lru_cache(maxsize=16)
def _times(table: Timetable, first: datetime, last: datetime) -> tuple[Interval, ...]:
    """The data intervals that begin from `first` to `last`, at most one more than TIMES_MAX."""
    found: list[Interval] = []
    interval = table.from_start(first)
    while interval.start <= last and len(found) <= TIMES_MAX:
        found.append(interval)
        interval = table.following(interval)
    return tuple(found)


def table_of(version: WorkflowVersion) -> Timetable | None:
    """The timetable of a version; None when it has no times."""
    definition = version.definition
    if not definition["schedule"] or definition["schedule"] == CONTINUOUS:
        return None
    return _table(definition["schedule"], definition["timezone"], definition["start_date"])


def intervals_of(version: WorkflowVersion, first: datetime, last: datetime, order: str) -> tuple[Interval, ...]:
    """The data intervals in the order in which their runs are made."""
    table = table_of(version)
    found = _times(table, first, last) if table is not None else ()
    return found[::-1] if order == Backfill.Order.BACKWARD else found


def covered(version: WorkflowVersion, first: datetime, last: datetime, now: datetime) -> tuple[datetime, ...]:
    """The logical times of a range whose data intervals have ended by now, oldest first. Raises Invalid."""
    table = table_of(version)
    if table is None:
        raise Invalid(
            f"Version {version.number} has no schedule with times, so there are no logical times to fill: "
            "give the workflow one, or trigger runs with a logical time each.",
            code="no_schedule",
        )
    for name, moment in (("first", first), ("last", last)):
        if moment.year not in YEARS:
            raise Invalid.field(name, f"from {YEARS[0]} to {YEARS[-1]}.", "out_of_range")
    if last < first:
        raise Invalid.field("last", "is before first.", "out_of_range")
    end = start_of(version.definition.get("end_date"), version.definition["timezone"])
    found = _times(table, first, min(last, table.complete(now).start, end or last))
    if not found:
        schedule = version.definition["schedule"]
        text = f"{schedule} has no data interval that begins from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
        raise Invalid.field("last", f"{text} UTC and has ended.", "no_times")
    if len(found) > TIMES_MAX:
        raise Invalid.field("last", f"that is more than {TIMES_MAX:,} runs: take a shorter range.", "too_many")
    return tuple(interval.start for interval in found)


def slots(workflow: Workflow, moments: Sequence[datetime], existing: str) -> tuple[Slot, ...]:
    """What to do with each of the times, by the latest run that it has."""
    latest: dict[datetime, tuple[int, str]] = {}
    if not moments:
        return ()
    rows = Run.objects.filter(workflow=workflow, logical_time__range=(min(moments), max(moments))).order_by("pk")
    for moment, pk, state in rows.values_list("logical_time", "pk", "state"):
        latest[moment] = (pk, state)
    found = []
    for moment in moments:
        run, state = latest.get(moment, (None, None))
        found.append(Slot(moment, run, state, run is None or state in _AGAIN[Backfill.Existing(existing)]))
    return tuple(found)


def plan_backfill(
    workflow: Workflow,
    version: WorkflowVersion,
    *,
    first: datetime,
    last: datetime,
    order: str,
    existing: str,
    now: datetime,
) -> BackfillPlan:
    """What a backfill of this range would do now, and what it would cost. Raises Invalid."""
    moments = covered(version, first, last, now)
    ordered = moments[::-1] if order == Backfill.Order.BACKWARD else moments
    chosen = slots(workflow, ordered, existing)
    makes = float(sum(slot.makes for slot in chosen))
    plan = plan_of(version.pk)
    shares = {name: makes for name in plan.graph.order if plan.tasks[name].kind != "empty"}
    return BackfillPlan(version, moments[0], moments[-1], chosen, of_times(usual(workflow.pk), shares))
