"""Backfills: made with a preview, carried on by the timetable's loop, paused, resumed, cancelled, re-run.

A backfill's runs are made little by little: a pass makes the next of them and moves the backfill's position in one
transaction, so that a kill at any point loses and repeats nothing. It holds the workflow's row, as the timetable
does, so that no logical time gets a run of both. Lock order: workflow → active backfill → run → ended backfill.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, DomainError, Invalid
from apps.events.record import record, transition

from .. import policies
from ..backfills import BackfillPlan, intervals_of, plan_backfill, slots
from ..clearing import Choice
from ..facts import backfill_fact
from ..models import Backfill, Run, Workflow
from ..plans import plan_of
from ..states import BACKFILL_ACTIVE, BACKFILL_EDGES, RUN_ACTIVE, BackfillState, RunState
from .clear import clear
from .notes import NOTE_MAX
from .runs import NewRun, cancel_run, checked_params, chosen_version, create_runs

logger = logging.getLogger(__name__)

ACTIVE_RUNS_MAX = 1000
# Times that one pass looks at, and runs that wait in a backfill's queue for each that may be active.
STEP = 100
AHEAD = 2
AHEAD_MIN = 10
BAD = (RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Created:
    """A new backfill with what it does."""

    backfill: Backfill
    plan: BackfillPlan


@transaction.atomic
def create_backfill(
    *,
    actor: Actor,
    workflow_id: int,
    first: datetime,
    last: datetime,
    existing: str = Backfill.Existing.NONE,
    order: str = Backfill.Order.FORWARD,
    max_active_runs: int = 4,
    params: Mapping[str, Any] | None = None,
    version: int | None = None,
    note: str = "",
    no_cache: bool = False,
) -> Created:
    """Let a workflow run for the logical times of its schedule from `first` to `last` (both included).

    Times whose data interval has not ended are left out. A time that has a run is left as it is, unless `existing`
    says otherwise: `failed` makes another run where the latest failed or was cancelled, `completed` also where it
    succeeded; never beside one that is active. The first runs are made at once. With `no_cache` their tasks take no
    earlier results. Raises Invalid for a version without a schedule, a range without times or with too many, and
    parameters that the version does not accept.
    """
    workflow = policies.workflows.get(actor, "backfill", lock=True, pk=workflow_id)
    chosen = chosen_version(workflow, version)
    for name, value, accepted in (("existing", existing, Backfill.Existing), ("order", order, Backfill.Order)):
        if value not in accepted.values:
            raise Invalid.field(name, f"one of {', '.join(accepted.values)}.", "invalid_choice")
    if not 1 <= max_active_runs <= ACTIVE_RUNS_MAX:
        raise Invalid.field("max_active_runs", f"from 1 to {ACTIVE_RUNS_MAX}.", "out_of_range")
    if len(note) > NOTE_MAX:
        raise Invalid.field("note", f"at most {NOTE_MAX} characters.", "too_long")
    if order == Backfill.Order.BACKWARD and plan_of(chosen.pk).past:
        text = "tasks of it wait for the run before (depends_on_past), so its runs go forward."
        raise Invalid.field("order", text, "contradiction")
    values = checked_params(chosen, params or {})
    now = timezone.now()
    plan = plan_backfill(workflow, chosen, first=first, last=last, order=order, existing=existing, now=now)
    if not plan.makes:
        raise Conflict(
            f"There is nothing to run: each of the {len(plan.slots)} logical times has a run already. "
            "existing=failed or existing=completed runs them again.",
            code="nothing_to_run",
        )
    backfill = Backfill.objects.create(
        workflow=workflow,
        version=chosen,
        tenant_id=workflow.tenant_id,
        owner_id=actor.user_id,
        first=plan.first,
        last=plan.last,
        order=order,
        existing=existing,
        max_active_runs=max_active_runs,
        no_cache=no_cache,
        params=values,
        note=note,
        total=len(plan.slots),
        created_at=now,
    )
    facts = {
        "workflow": workflow.name,
        "version": chosen.number,
        "first": plan.first.isoformat(),
        "last": plan.last.isoformat(),
        "times": len(plan.slots),
        "runs": plan.makes,
        "max_active_runs": max_active_runs,
        **({"no_cache": True} if no_cache else {}),
    }
    record(actor, backfill_fact("backfill.created", backfill, reason=note, **facts))
    _make_runs(workflow, backfill, now)
    return Created(backfill, plan)


def advance_backfills(now: datetime) -> bool:
    """One pass over the running backfills: make their next runs, end those that have come to their end. Returns
    whether there is more to make at once."""
    running = Backfill.objects.filter(state=BackfillState.RUNNING).order_by("pk")
    more = False
    for pk, workflow_id in list(running.values_list("pk", "workflow_id")):
        try:
            more |= _advance(pk, workflow_id, now)
        except (DomainError, ValueError):
            # One that cannot go on must not keep the others waiting.
            logger.exception("Backfill %s could not be carried on", pk)
    return more


@transaction.atomic
def _advance(pk: int, workflow_id: int, now: datetime) -> bool:
    workflow = Workflow.objects.select_for_update(skip_locked=True).filter(pk=workflow_id).first()
    if workflow is None:
        return False
    rows = Backfill.objects.select_for_update(of=("self",)).select_related("version")
    backfill = rows.filter(pk=pk, state=BackfillState.RUNNING).first()
    if backfill is None:
        return False
    if backfill.position < backfill.total:
        return _make_runs(workflow, backfill, now)
    if not backfill.runs.filter(state__in=sorted(RUN_ACTIVE)).exists():
        bad = backfill.runs.filter(state__in=BAD).count()
        state = BackfillState.FAILED if bad else BackfillState.SUCCEEDED
        fact = backfill_fact("", backfill, runs=backfill.made, failed=bad)
        transition(SYSTEM, backfill, BACKFILL_EDGES, state, fact, ended_at=now)
    return False


def _make_runs(workflow: Workflow, backfill: Backfill, now: datetime) -> bool:
    """The next runs, as far as there is room in the backfill's queue; returns whether there is more to look at."""
    queued = backfill.runs.filter(state=RunState.QUEUED).count() if backfill.position else 0
    room = max(AHEAD_MIN, AHEAD * backfill.max_active_runs) - queued
    covered = {one.start: one for one in intervals_of(backfill.version, backfill.first, backfill.last, backfill.order)}
    moments = tuple(covered)
    following = slots(workflow, moments[backfill.position : backfill.position + STEP], backfill.existing)
    new: list[NewRun] = []
    looked = 0
    for slot in following:
        if slot.makes and len(new) >= room:
            break
        looked += 1
        if slot.makes:
            new.append(
                NewRun(
                    slot.logical_time,
                    Run.Trigger.BACKFILL,
                    backfill.owner_id,
                    backfill.params,
                    backfill.note,
                    covered[slot.logical_time],
                    backfill_id=backfill.pk,
                    no_cache=backfill.no_cache,
                )
            )
    if new:
        create_runs(SYSTEM, workflow, backfill.version, new, now)
    backfill.position += looked
    backfill.made += len(new)
    backfill.save(update_fields=["position", "made"])
    return looked == len(following) and backfill.position < backfill.total


@transaction.atomic
def pause_backfill(*, actor: Actor, backfill_id: int, reason: str = "") -> Backfill:
    """Start no further runs of a backfill; those that run go on. Pausing twice changes nothing."""
    return _move(actor, backfill_id, "pause", BackfillState.PAUSED, BackfillState.RUNNING, reason)


@transaction.atomic
def resume_backfill(*, actor: Actor, backfill_id: int, reason: str = "") -> Backfill:
    """Let a paused backfill go on from where it stood. Resuming twice changes nothing."""
    return _move(actor, backfill_id, "resume", BackfillState.RUNNING, BackfillState.PAUSED, reason)


def _move(actor: Actor, pk: int, action: str, to: BackfillState, source: BackfillState, reason: str) -> Backfill:
    backfill = policies.backfills.get(actor, action, lock=True, pk=pk)
    if backfill.state == to:
        return backfill
    if backfill.state != source:
        raise Conflict(f"Backfill {pk} has {backfill.state} already.", code="already_ended")
    transition(actor, backfill, BACKFILL_EDGES, to, backfill_fact("", backfill, reason=reason))
    return backfill


@transaction.atomic
def cancel_backfill(*, actor: Actor, backfill_id: int, reason: str = "") -> Backfill:
    """End a backfill now: it makes no further runs, and those that have not ended are cancelled.

    Raises Conflict for one that has ended.
    """
    backfill = policies.backfills.get(actor, "cancel", lock=True, pk=backfill_id)
    if backfill.state not in BACKFILL_ACTIVE:
        raise Conflict(f"Backfill {backfill.pk} has {backfill.state} already.", code="already_ended")
    active = backfill.runs.filter(state__in=sorted(RUN_ACTIVE)).order_by("pk")
    why = reason or f"Backfill {backfill.pk} was cancelled."
    runs = list(active.values_list("pk", flat=True))
    stopped = sum(_unless_refused(cancel_run, actor=actor, run_id=run_id, reason=why) for run_id in runs)
    fact = backfill_fact("", backfill, stopped=stopped, left=backfill.total - backfill.position, reason=reason)
    transition(actor, backfill, BACKFILL_EDGES, BackfillState.CANCELLED, fact, ended_at=timezone.now())
    return backfill


def _unless_refused(command: Callable[..., object], **arguments: Any) -> bool:
    """Do it to a run, unless somebody has just moved it on; whether it was done."""
    try:
        command(**arguments)
    except Conflict:
        return False
    return True


@transaction.atomic
def rerun_backfill(*, actor: Actor, backfill_id: int, newest: bool = False, reason: str = "") -> Backfill:
    """Run what failed of a backfill again: in each of its failed or cancelled runs the tasks that failed and what is
    behind them, on the run's version or the newest. Works while the backfill goes on and after its end; one that was
    cancelled makes no runs beyond those it has. Raises Conflict when none has failed.
    """
    backfill = policies.backfills.get(actor, "rerun", pk=backfill_id)
    # All of them first: the first clear takes the backfill's row, which comes after every run in the lock order.
    bad = backfill.runs.select_for_update(of=("self",)).filter(state__in=BAD).order_by("pk")
    failed = list(bad.values_list("pk", flat=True))
    if not failed:
        raise Conflict(f"No run of backfill {backfill.pk} has failed or was cancelled.", code="nothing_failed")
    why = reason or f"What failed of backfill {backfill.pk} runs again."
    choice = Choice(only_failed=True, newest=newest)
    cleared = sum(_unless_refused(clear, actor=actor, run_id=run_id, choice=choice, reason=why) for run_id in failed)
    record(actor, backfill_fact("backfill.rerun", backfill, runs=cleared, reason=reason))
    # One that had ended goes on with the first of its runs, and one that goes on is not to be locked after them.
    cancelled = Backfill.objects.select_for_update().filter(pk=backfill.pk, state=BackfillState.CANCELLED).first()
    if cancelled is not None:
        cancelled.position = cancelled.total
        cancelled.save(update_fields=["position"])
        fact = backfill_fact("", cancelled, reason=reason)
        transition(actor, cancelled, BACKFILL_EDGES, BackfillState.RUNNING, fact, ended_at=None)
    backfill.refresh_from_db()
    return backfill
