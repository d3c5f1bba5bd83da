"""Backfills: what they cover, in which order and how many at once, and that nothing runs twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid, NotFound
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.commands import backfills as module
from apps.workflows.models import Backfill, Run, Workflow
from tests.apps.workflows.driver import bash, definition, end_job, step
from tests.personas import World

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 1, tzinfo=UTC)
PARAMS = {"properties": {"n": {"type": "integer", "default": 1}}}


def day(number: int) -> datetime:
    return START + timedelta(days=number - 1)


@pytest.fixture
def workflow(world: World) -> Workflow:
    spec = definition(bash("a"), bash("b", "a"), schedule="@daily", params=PARAMS, max_active_runs=1)
    return commands.push(actor=SYSTEM, tenant=world.vision, definition=spec).workflow


def backfill(workflow: Workflow, days: int = 5, **options: Any) -> Backfill:
    options = {"first": day(1), "last": day(days), "max_active_runs": 2, **options}
    return commands.create_backfill(actor=SYSTEM, workflow_id=workflow.pk, **options).backfill


def drive(found: Backfill, failed: frozenset[datetime] = frozenset(), passes: int = 60) -> list[datetime]:
    """Let both loops go until the backfill has ended; the logical times of its runs in the order of their starts."""
    for _ in range(passes):
        step()
        active = Run.objects.filter(backfill=found, state="running").count()
        assert active <= found.max_active_runs
        for job in Job.objects.filter(task__run__backfill=found, state="pending").select_related("task__run"):
            end_job(job, "failed" if job.task.run.logical_time in failed else "succeeded")
        step()
        commands.advance_backfills(timezone.now())
        found.refresh_from_db()
        if found.ended_at is not None:
            started = found.runs.order_by("started_at", "pk").values_list("logical_time", flat=True)
            return list(started)
    raise AssertionError(f"the backfill did not end: {list(found.runs.values_list('logical_time', 'state'))}")


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_every_time_of_the_range_gets_one_run_in_order(workflow: Workflow, order: str) -> None:
    found = backfill(workflow, order=order)
    expected = [day(number) for number in range(1, 6)]
    assert drive(found) == (expected if order == "forward" else expected[::-1])
    assert (found.state, found.total, found.position, found.made) == ("succeeded", 5, 5, 5)
    assert set(found.runs.values_list("trigger", "state")) == {("backfill", "succeeded")}


def test_a_long_one_is_made_little_by_little(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_MIN", 1)
    monkeypatch.setattr(module, "STEP", 3)
    found = backfill(workflow, 9, max_active_runs=1)
    assert found.runs.count() == 2
    times = drive(found)
    assert times == [day(number) for number in range(1, 10)]


def test_what_was_not_committed_is_made_later_once(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    found = backfill(workflow)
    made = module.create_runs

    def killed(*arguments: Any) -> None:
        made(*arguments)
        raise ValueError("killed before the commit")

    with monkeypatch.context() as patched:
        patched.setattr(module, "create_runs", killed)
        commands.advance_backfills(timezone.now())
    found.refresh_from_db()
    assert (found.position, found.made, found.runs.count()) == (2, 2, 2)
    assert len(drive(found)) == found.runs.count() == 5


def test_its_cap_is_apart_from_that_of_the_workflow(workflow: Workflow) -> None:
    found = backfill(workflow, max_active_runs=3)
    mine = [commands.trigger(actor=SYSTEM, workflow_id=workflow.pk) for _ in range(2)]
    step()
    assert found.runs.filter(state="running").count() == 3
    assert Run.objects.filter(pk__in=[run.pk for run in mine], state="running").count() == 1


@pytest.mark.parametrize(("existing", "made"), [("none", [3, 5]), ("failed", [2, 3, 5]), ("completed", [1, 2, 3, 5])])
def test_a_time_that_has_a_run_gets_another_only_when_told_so(
    workflow: Workflow, existing: str, made: list[int]
) -> None:
    for number, state in ((1, "succeeded"), (2, "failed"), (4, "running")):
        run = commands.trigger(actor=SYSTEM, workflow_id=workflow.pk, logical_time=day(number))
        Run.objects.filter(pk=run.pk).update(state=state)
    found = backfill(workflow, existing=existing)
    assert sorted(found.runs.values_list("logical_time", flat=True)) == [day(number) for number in made]
    assert (found.position, found.made) == (5, len(made))


def test_the_timetable_makes_no_second_run(workflow: Workflow) -> None:
    found = backfill(workflow, 3)
    Workflow.objects.filter(pk=workflow.pk).update(catchup=True, next_logical_time=day(1), next_run_at=day(2))
    commands.create_due_runs(day(5))
    times = list(Run.objects.filter(workflow=workflow).order_by("logical_time").values_list("logical_time", "trigger"))
    assert times == [(day(1), "backfill"), (day(2), "backfill"), (day(3), "backfill"), (day(4), "schedule")]
    assert found.made == 3


def test_paused_it_starts_nothing_and_resumed_it_goes_on(workflow: Workflow) -> None:
    found = backfill(workflow)
    commands.pause_backfill(actor=SYSTEM, backfill_id=found.pk)
    step()
    commands.advance_backfills(timezone.now())
    assert not found.runs.exclude(state="queued").exists()
    commands.resume_backfill(actor=SYSTEM, backfill_id=found.pk)
    found.refresh_from_db()
    assert len(drive(found)) == 5


def test_cancelled_it_ends_what_has_not_ended(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_MIN", 1)
    found = backfill(workflow, 9, max_active_runs=1)
    step()
    commands.cancel_backfill(actor=SYSTEM, backfill_id=found.pk)
    commands.advance_backfills(timezone.now())
    assert set(found.runs.values_list("state", flat=True)) == {"cancelled"}
    assert found.runs.count() == 2
    with pytest.raises(Conflict, match="has cancelled already"):
        commands.pause_backfill(actor=SYSTEM, backfill_id=found.pk)
    again = commands.rerun_backfill(actor=SYSTEM, backfill_id=found.pk)
    drive(again)
    assert (again.state, again.runs.count()) == ("succeeded", 2)


def test_what_failed_runs_again_in_the_same_runs(workflow: Workflow) -> None:
    found = backfill(workflow)
    drive(found, failed=frozenset({day(2), day(4)}))
    assert found.state == "failed"
    runs = set(found.runs.values_list("pk", flat=True))
    again = commands.rerun_backfill(actor=SYSTEM, backfill_id=found.pk)
    assert again.state == "running"
    assert again.runs.filter(state="queued").count() == 2
    drive(again)
    assert again.state == "succeeded"
    assert set(again.runs.values_list("pk", flat=True)) == runs
    with pytest.raises(Conflict, match="No run of backfill"):
        commands.rerun_backfill(actor=SYSTEM, backfill_id=found.pk)


def test_a_version_and_parameters_can_be_chosen(world: World, workflow: Workflow) -> None:
    spec = definition(bash("only"), schedule="@hourly")
    commands.push(actor=SYSTEM, tenant=world.vision, definition=spec)
    found = backfill(workflow, 2, version=1, params={"n": 7})
    assert set(found.runs.values_list("version__number", flat=True)) == {1}
    assert [run.params for run in found.runs.all()] == [{"n": 7}] * 2


def test_times_whose_interval_has_not_ended_are_left_out(workflow: Workflow) -> None:
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    found = backfill(workflow, first=today - timedelta(days=2), last=today + timedelta(days=3))
    assert (found.total, found.last) == (2, today - timedelta(days=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last": day(0)}, "before first"),
        ({"first": day(1) + timedelta(hours=1), "last": day(1) + timedelta(hours=2)}, "no data interval"),
        ({"first": datetime(1971, 1, 1, tzinfo=UTC)}, "more than 10,000"),
        ({"max_active_runs": 0}, "from 1 to 1000"),
        ({"existing": "all"}, "one of none, failed, completed"),
        ({"order": "up"}, "one of forward, backward"),
        ({"params": {"m": 1}}, "params.m"),
        ({"version": 9}, "no version 9"),
        ({"note": "x" * 501}, "500"),
    ],
)
def test_what_cannot_be_filled_is_refused(workflow: Workflow, options: dict[str, Any], said: str) -> None:
    with pytest.raises((Invalid, NotFound), match=said):
        backfill(workflow, **options)
    assert not Backfill.objects.exists() and not Run.objects.exists()


def test_without_a_schedule_there_is_nothing_to_fill(world: World) -> None:
    plain = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"))).workflow
    with pytest.raises(Invalid, match="has no schedule"):
        backfill(plain)


def test_nothing_to_run_is_said(workflow: Workflow) -> None:
    backfill(workflow, 2)
    with pytest.raises(Conflict, match="each of the 2 logical times has a run"):
        backfill(workflow, 2)


@pytest.mark.parametrize(("persona", "error"), [("auditor", Forbidden), ("stranger", NotFound), ("nobody", NotFound)])
def test_only_members_make_and_control_them(
    world: World, workflow: Workflow, persona: str, error: type[Exception]
) -> None:
    found = backfill(workflow)
    actor = world.actor(persona)
    with pytest.raises(error):
        commands.create_backfill(actor=actor, workflow_id=workflow.pk, first=day(1), last=day(9))
    for act in (
        commands.pause_backfill,
        commands.resume_backfill,
        commands.cancel_backfill,
        commands.rerun_backfill,
    ):
        with pytest.raises(error):
            act(actor=actor, backfill_id=found.pk)
