"""Fixed intervals, several schedules, continuous workflows, end dates, and what a push says of the clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.workflows import commands
from apps.workflows.clearing import Choice
from apps.workflows.commands.definitions import plan_timetable
from apps.workflows.models import Run, Workflow
from apps.workflows.timetable import Interval, Timetable, due
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.schedule import clock_changes, clock_warnings
from tests.apps.workflows.driver import bash, definition, end, finish, states, step
from tests.personas import World

BERLIN = "Europe/Berlin"
NOW = datetime(2026, 3, 14, 14, 45, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def push(world: World, now: datetime = NOW, **fields: Any) -> Workflow:
    """A workflow whose timetable began at `now`."""
    tasks = fields.pop("tasks", [bash("a")])
    workflow = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(*tasks, **fields)).workflow
    plan_timetable(workflow, now)
    workflow.save()
    return workflow


def logical_times(workflow: Workflow) -> list[str]:
    return [f"{run.logical_time:%m-%dT%H:%M}" for run in workflow.runs.order_by("logical_time")]


def canonical(schedule: Any) -> Any:
    return parse_workflow(definition(bash("a"), schedule=schedule)).definition["schedule"]


# Intervals


def test_an_interval_counts_from_its_anchor_whatever_the_clock_shows() -> None:
    table = Timetable("every 90m", BERLIN, anchor=utc("2026-03-28T23:00"))
    moment, found = utc("2026-03-28T23:10"), []
    for _ in range(3):
        moment = table.after(moment)
        found.append(f"{moment.astimezone(table.zone):%H:%M%z}")
    assert found == ["01:30+0100", "04:00+0200", "05:30+0200"]


def test_an_interval_without_a_start_counts_from_midnight_of_the_zone() -> None:
    assert Timetable("every 6h", "UTC").after(NOW) == utc("2026-03-14T18:00")
    assert Timetable("every 1d", "Asia/Kathmandu").after(NOW) == utc("2026-03-14T18:30")


@given(
    seconds=st.integers(1, 400 * 86400),
    anchor=st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)),
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2040, 1, 1)),
)
def test_intervals_leave_no_gap(seconds: int, anchor: datetime, moment: datetime) -> None:
    if seconds > 366 * 86400:
        return
    table = Timetable(f"every {seconds}s", "UTC", anchor=anchor.replace(tzinfo=UTC))
    now = moment.replace(tzinfo=UTC)
    latest, after = table.latest(now), table.after(now)
    assert latest <= now < after == latest + timedelta(seconds=seconds)
    assert (latest - anchor.replace(tzinfo=UTC)) % timedelta(seconds=seconds) == timedelta(0)
    assert table.complete(now) == Interval(latest - timedelta(seconds=seconds), latest)


# Several


def test_a_list_of_schedules_is_one_text() -> None:
    assert canonical(["0 6 * * 1-5", " every 2h "]) == "0 6 * * 1-5; every 2h"
    assert canonical(["@daily"]) == canonical("@daily") == "@daily"
    assert canonical([]) is None


@given(moment=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)))
@settings(deadline=None, max_examples=50)
def test_several_schedules_come_whenever_one_does(moment: datetime) -> None:
    schedules, now = ["30 2 * * *", "0 6 * * 1-5", "every 7h"], moment.replace(tzinfo=UTC)
    together = Timetable("; ".join(schedules), BERLIN)
    alone = [Timetable(schedule, BERLIN) for schedule in schedules]
    assert together.after(now) == min(table.after(now) for table in alone)
    assert together.latest(now) == max(table.latest(now) for table in alone)
    assert together.after(together.latest(now)) == together.after(now)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("every 0s", "at least 1s"),
        ("every soon", "every soon"),
        ("every 400d", "366 days"),
        ("0 0 30 2 *", "bad day-of-month"),
        (["@daily", "61 * * * *"], "bad minute"),
        ("@continuous; @daily", "stands alone"),
        ("@fortnightly", "aliases are"),
        (["@daily"] * 11, "at most 10 parts"),
        ("@daily;", "0 fields"),
        ([1], "must be a string"),
    ],
)
def test_a_wrong_schedule_is_refused(schedule: Any, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        canonical(schedule)
    [fault] = refused.value.errors
    assert fault["field"] == "schedule" and said.lower() in fault["message"].lower()


# The clock


def test_changes_of_the_clock_are_found_to_the_second() -> None:
    spring, autumn = clock_changes(Timetable("@daily", BERLIN).zone, NOW)[:2]
    assert (spring.at, f"{spring.before:%H:%M}", f"{spring.after:%H:%M}") == (utc("2026-03-29T01:00"), "02:00", "03:00")
    assert (autumn.at, f"{autumn.before:%H:%M}", f"{autumn.after:%H:%M}") == (utc("2026-10-25T01:00"), "03:00", "02:00")


@pytest.mark.parametrize(
    ("schedule", "zone", "said"),
    [
        ("30 2 * * *", BERLIN, ["02:30 on 2026-03-29", "02:30 on 2026-10-25"]),
        ("30 2 * * 1-5", BERLIN, []),  # The clock changes on Sundays.
        ("0 3 * * *", BERLIN, []),
        ("0 2 * * *", BERLIN, ["02:00 on 2026-03-29", "02:00 on 2026-10-25"]),
        ("*/30 2 * * *", BERLIN, []),
        ("30 2 * * *", "UTC", []),
        ("every 1d", BERLIN, ["elapsed time"]),
        ("every 90m", BERLIN, []),
        ("@daily; 30 2 * * *", BERLIN, ["02:30 on 2026-03-29", "02:30 on 2026-10-25"]),
        (None, BERLIN, []),
    ],
)
def test_a_push_warns_of_times_that_the_clock_skips_or_shows_twice(
    schedule: str | None, zone: str, said: list[str]
) -> None:
    warnings = clock_warnings(schedule, zone, NOW)
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning


@pytest.mark.django_db
def test_the_answer_to_a_push_has_the_warnings(world: World) -> None:
    fields = {"schedule": "30 2 * * *", "timezone": BERLIN}
    for _ in range(2):
        pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), **fields))
        assert len(pushed.warnings) >= 2


# End dates


@pytest.mark.django_db
def test_no_interval_begins_after_the_end_date(world: World) -> None:
    workflow = push(world, now=NOW, schedule="@daily", start_date="2026-03-10", end_date="2026-03-16", catchup=True)
    assert [f"{found.start:%d}" for found in due(workflow, NOW)] == ["10", "11", "12", "13", "14", "15", "16"]
    commands.create_due_runs(utc("2026-03-20"))
    assert logical_times(workflow)[-1] == "03-16T00:00"
    workflow.refresh_from_db()
    assert (workflow.next_run_at, workflow.next_logical_time) == (None, None)
    assert list(due(workflow, NOW)) == []
    commands.create_due_runs(utc("2026-03-21"))
    assert workflow.runs.count() == 7


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "@daily", "end_date": "2020-01-01"},
        {"schedule": "@daily", "start_date": "2020-01-01", "end_date": "2020-01-31"},
        {"schedule": "@yearly", "start_date": "2030-02-01", "end_date": "2030-12-01"},
        {"schedule": "@continuous", "end_date": "2020-01-01"},
    ],
)
def test_a_schedule_that_never_comes_is_refused(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), **fields))
    assert refused.value.errors[0]["code"] == "never_comes"
    assert not Workflow.objects.exists()


@pytest.mark.django_db
def test_a_past_that_is_caught_up_is_no_schedule_that_never_comes(world: World) -> None:
    fields = {"schedule": "@daily", "start_date": "2020-01-01", "end_date": "2020-01-03", "catchup": True}
    workflow = push(world, **fields)
    commands.create_due_runs(NOW)
    assert logical_times(workflow) == ["01-01T00:00", "01-02T00:00", "01-03T00:00"]


# Data intervals


@pytest.mark.django_db
def test_runs_know_their_data_interval(world: World) -> None:
    workflow = push(world, schedule="@daily", timezone=BERLIN)
    commands.create_due_runs(utc("2026-03-15"))
    run = workflow.runs.get()
    assert (run.data_interval_start, run.data_interval_end) == (utc("2026-03-13T23:00"), utc("2026-03-14T23:00"))
    step()
    env = run.tasks.get().job.spec["groups"][0]["env"]
    assert env["RM_DATA_INTERVAL_START"] == "2026-03-14T00:00:00+01:00"
    assert env["RM_DATA_INTERVAL_END"] == "2026-03-15T00:00:00+01:00"
    by_hand = commands.trigger(actor=SYSTEM, workflow_id=workflow.pk, logical_time=utc("2026-03-20T12:00"))
    assert (by_hand.data_interval_start, by_hand.data_interval_end) == (
        utc("2026-03-18T23:00"), utc("2026-03-19T23:00")
    )  # fmt: skip


@pytest.mark.django_db
def test_a_run_without_a_schedule_has_no_data_interval(world: World) -> None:
    workflow = push(world)
    run = commands.trigger(actor=SYSTEM, workflow_id=workflow.pk)
    step()
    assert run.data_interval_start is None
    assert "RM_DATA_INTERVAL_START" not in run.tasks.get().job.spec["groups"][0]["env"]


# Continuous


@pytest.mark.django_db
def test_a_continuous_run_follows_the_one_that_succeeded_at_once(world: World) -> None:
    workflow = push(world, schedule="@continuous")
    now = NOW
    commands.create_due_runs(now)
    commands.create_due_runs(now + timedelta(seconds=30))
    first = workflow.runs.get()
    step()
    assert finish(first) == "succeeded"
    workflow.refresh_from_db()
    assert workflow.next_run_at is not None
    ended = workflow.next_run_at
    commands.create_due_runs(ended)
    second = workflow.runs.exclude(pk=first.pk).get()
    assert (second.trigger, second.data_interval_start, second.data_interval_end) == ("schedule", NOW, ended)


@pytest.mark.django_db
def test_a_continuous_workflow_whose_runs_fail_does_not_spin(world: World) -> None:
    workflow = push(world, schedule="@continuous")
    commands.create_due_runs(NOW)
    step()
    assert finish(workflow.runs.get(), lambda task: ("failed", None)) == "failed"
    commands.create_due_runs(NOW + timedelta(seconds=9))
    assert workflow.runs.count() == 1
    commands.create_due_runs(NOW + timedelta(seconds=10))
    assert workflow.runs.count() == 2


@pytest.mark.django_db
def test_a_paused_continuous_workflow_rests(world: World) -> None:
    workflow = push(world, schedule="@continuous")
    commands.create_due_runs(NOW)
    step()
    commands.pause(actor=SYSTEM, workflow_id=workflow.pk)
    finish(workflow.runs.get())
    commands.create_due_runs(NOW + timedelta(hours=1))
    assert workflow.runs.count() == 1
    commands.resume(actor=SYSTEM, workflow_id=workflow.pk)
    commands.create_due_runs(datetime.now(UTC) + timedelta(seconds=1))
    assert workflow.runs.count() == 2


# The past


def two_runs(world: World, *tasks: dict[str, Any]) -> tuple[Run, Run]:
    """The runs of two days in a row, both started."""
    workflow = push(world, schedule="@daily", catchup=True, start_date="2026-03-12", tasks=tasks)
    commands.create_due_runs(NOW)
    first, second = workflow.runs.order_by("logical_time")
    step()
    return first, second


def look() -> None:
    """The passes that follow from what the last one found: what it told Redis is found by the search here."""
    step(review=True)


@pytest.mark.django_db
def test_a_task_waits_for_itself_in_the_run_before(world: World) -> None:
    first, second = two_runs(world, bash("a"), bash("b", "a", depends_on_past=True))
    assert states(second) == {"a": "queued", "b": "waiting"}
    end(second, "a")
    look()
    assert states(second)["b"] == "waiting"
    waiting = second.tasks.get(name="b")
    assert waiting.detail == f"Waits for b of the run before it, run {first.pk}."
    end(first, "a")
    look()
    assert states(second)["b"] == "waiting"
    end(first, "b")
    step()
    look()
    assert states(second)["b"] == "queued"
    waiting.refresh_from_db()
    assert waiting.detail == "" and not hasattr(waiting, "past_wait")
    assert finish(second) == "succeeded"


@pytest.mark.django_db
def test_a_failed_past_holds_and_a_mended_one_lets_go(world: World) -> None:
    first, second = two_runs(world, bash("a", depends_on_past=True))
    end(first, "a", "failed")
    step()
    look()
    assert (states(first), states(second)) == ({"a": "failed"}, {"a": "waiting"})
    first.tasks.update(state="succeeded")
    look()
    assert states(second) == {"a": "queued"}


@pytest.mark.django_db
def test_a_run_that_others_wait_for_starts_beside_the_limit(world: World) -> None:
    """Cleared, it would stand behind a run that holds the only place and waits for it."""
    workflow = push(
        world, schedule="@daily", catchup=True, start_date="2026-03-12", max_active_runs=1,
        tasks=[bash("a", depends_on_past=True)],
    )  # fmt: skip
    commands.create_due_runs(NOW)
    first, second = workflow.runs.order_by("logical_time")
    step()
    assert states(first) == {"a": "queued"} and second.state == "queued"
    assert finish(first, lambda task: ("failed", None)) == "failed"
    look()
    second.refresh_from_db()
    assert second.state == "running"
    commands.clear(actor=SYSTEM, run_id=first.pk, choice=Choice(()))
    step()
    assert finish(first) == "succeeded"
    look()
    assert finish(second) == "succeeded"


@pytest.mark.django_db
def test_waiting_for_downstream(world: World) -> None:
    first, second = two_runs(world, bash("a", wait_for_downstream=True), bash("b", "a"), bash("c", "b"))
    end(first, "a")
    step()
    look()
    assert states(second)["a"] == "waiting"
    assert second.tasks.get(name="a").detail.startswith("Waits for a, b of the run before")
    end(first, "b")
    step()
    look()
    assert states(second)["a"] == "queued"


@pytest.mark.django_db
def test_the_past_that_ends_in_the_same_pass_lets_go_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    from apps.workflows import apply

    told: list[list[int]] = []
    monkeypatch.setattr(apply.moved, "tell_runs", lambda runs: told.append(list(runs)))
    first, second = two_runs(world, bash("a"), bash("b", "a", depends_on_past=True))
    end(first, "a")
    step()
    end(first, "b")
    end(second, "a")
    step()
    assert told == [[second.pk]]
    look()
    assert states(second)["b"] == "queued"


@pytest.mark.django_db
def test_runs_by_hand_neither_wait_nor_are_waited_for(world: World) -> None:
    first, second = two_runs(world, bash("a", depends_on_past=True))
    by_hand = commands.trigger(actor=SYSTEM, workflow_id=first.workflow_id, logical_time=utc("2026-03-12T12:00"))
    step()
    assert states(by_hand) == {"a": "queued"}
    end(first, "a")
    step()
    look()
    assert states(second) == {"a": "queued"}


@pytest.mark.django_db
def test_the_cost_of_waiting_does_not_follow_the_history(world: World, django_assert_max_num_queries: Any) -> None:
    _first, second = two_runs(world, bash("a", depends_on_past=True))
    plain = [
        commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), name=f"w{number}")).workflow
        for number in range(3)
    ]
    for workflow in plain:
        commands.trigger(actor=SYSTEM, workflow_id=workflow.pk)
    # Starting three runs without a past costs no statement on its account.
    with django_assert_max_num_queries(30) as asked:
        step()
    assert not any("pastwait" in query["sql"] for query in asked.captured_queries)
    assert states(second) == {"a": "waiting"}
