"""Cron over half-open intervals, daylight saving, catching up, pausing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.actors import SYSTEM
from apps.workflows import commands
from apps.workflows.commands.definitions import plan_timetable
from apps.workflows.models import Run, Workflow
from apps.workflows.timetable import Interval, Timetable, start_of
from tests.apps.workflows.driver import bash, definition, step
from tests.personas import World

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(schedule: str, zone: str, begin: str, count: int) -> list[str]:
    """The next times, as the clock on the wall shows them."""
    table = Timetable(schedule, zone)
    moment, found = utc(begin), []
    for _ in range(count):
        moment = table.after(moment)
        found.append(moment.astimezone(table.zone).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("alias", "begin", "end"),
    [
        ("@hourly", "2026-03-14T14:00", "2026-03-14T15:00"),
        ("@daily", "2026-03-14T00:00", "2026-03-15T00:00"),
        ("@weekly", "2026-03-08T00:00", "2026-03-15T00:00"),
        ("@monthly", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("@yearly", "2026-01-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_aliases(alias: str, begin: str, end: str) -> None:
    table = Timetable(alias, "UTC")
    assert table.first(utc("2026-03-14T14:45"), None, catchup=False) == Interval(utc(begin), utc(end))


def test_a_day_begins_at_midnight_of_the_zone() -> None:
    assert times("@daily", BERLIN, "2026-03-27T12:00", 4) == [
        "03-28 00:00+0100", "03-29 00:00+0100", "03-30 00:00+0200", "03-31 00:00+0200"
    ]  # fmt: skip


def test_a_time_that_the_clock_skips_comes_right_after_the_gap() -> None:
    assert times("30 2 * * *", BERLIN, "2026-03-27T12:00", 3) == [
        "03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"
    ]  # fmt: skip
    assert times("15,45 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:15+0200"]


def test_a_time_that_the_clock_shows_twice_comes_the_first_time() -> None:
    assert times("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    # Asked between the two: 02:15 the second time.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:15", 1) == ["10-26 02:30+0100"]


def test_a_schedule_of_every_hour_follows_elapsed_time() -> None:
    assert times("0 * * * *", BERLIN, "2026-03-29T00:00", 2) == ["03-29 03:00+0200", "03-29 04:00+0200"]
    assert times("0 * * * *", BERLIN, "2026-10-24T23:30", 4) == [
        "10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100", "10-25 04:00+0100"
    ]  # fmt: skip
    assert times("*/30 * * * *", BERLIN, "2026-10-25T00:00", 4) == [
        "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100"
    ]  # fmt: skip


@given(
    schedule=st.sampled_from(
        [
            "@hourly",
            "@daily",
            "@monthly",
            "30 2 * * *",
            "15,45 1-3 * * *",
            "*/7 * * * *",
            "0 */2 * * 1-5",
            "5 2 29 * *",
        ]
    ),
    zone=st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    moment=st.one_of(
        st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
        # Around changes of the clock.
        st.builds(
            lambda at, minutes: at + timedelta(minutes=minutes),
            st.sampled_from(
                [
                    datetime(2026, 3, 29, 1),
                    datetime(2026, 10, 25, 1),
                    datetime(2026, 3, 8, 7),
                    datetime(2026, 11, 1, 6),
                ]
            ),
            st.integers(-200, 200),
        ),
    ),
)
@settings(max_examples=150, deadline=None)
def test_intervals_leave_no_gap_and_do_not_overlap(schedule: str, zone: str, moment: datetime) -> None:
    table, now = Timetable(schedule, zone), moment.replace(tzinfo=UTC)
    latest, after = table.latest(now), table.after(now)
    assert latest <= now < after
    assert table.after(latest) == after
    complete = table.complete(now)
    assert (complete.end, table.after(complete.start)) == (latest, latest)
    assert table.following(complete) == Interval(latest, after)
    assert table.from_start(latest).start == latest


def test_start_dates_are_of_the_zone() -> None:
    assert start_of("2026-07-01", BERLIN) == utc("2026-06-30T22:00")
    assert start_of("2026-07-01T06:00", BERLIN) == utc("2026-07-01T04:00")
    assert start_of("2026-07-01T06:00+00:00", BERLIN) == utc("2026-07-01T06:00")
    assert start_of(None, BERLIN) is None


# The loop

NOW = utc("2026-03-14T14:45")


def push(world: World, now: datetime = NOW, **fields: Any) -> Workflow:
    """A scheduled workflow whose timetable began at `now`."""
    tasks = [bash("a")]
    workflow = commands.push(
        actor=SYSTEM,
        tenant=world.vision,
        definition=definition(*tasks, **{"schedule": "@daily", **fields}),
    ).workflow
    plan_timetable(workflow, now)
    workflow.save()
    return workflow


def logical_times(workflow: Workflow) -> list[str]:
    return [f"{run.logical_time:%m-%dT%H}" for run in workflow.runs.order_by("logical_time")]


@pytest.mark.django_db
def test_a_run_is_made_at_the_end_of_its_interval(world: World) -> None:
    workflow = push(world)
    assert (workflow.next_logical_time, workflow.next_run_at) == (utc("2026-03-14"), utc("2026-03-15"))
    assert commands.create_due_runs(utc("2026-03-14T23:59")) is False
    assert logical_times(workflow) == []
    commands.create_due_runs(utc("2026-03-15"))
    commands.create_due_runs(utc("2026-03-15T00:01"))
    run = workflow.runs.get()
    assert (run.trigger, run.state, run.logical_time) == ("schedule", "queued", utc("2026-03-14"))
    workflow.refresh_from_db()
    assert (workflow.next_logical_time, workflow.next_run_at) == (utc("2026-03-15"), utc("2026-03-16"))
    step()
    run.refresh_from_db()
    assert run.state == "running"


@pytest.mark.django_db
def test_scheduled_runs_get_default_parameters_and_the_pushers_name(world: World) -> None:
    definition_ = definition(
        bash("a"), schedule="@hourly", params={"properties": {"n": {"type": "integer", "default": 3}}}
    )
    workflow = commands.push(actor=world.actor("member"), tenant=world.vision, definition=definition_).workflow
    assert workflow.next_run_at is not None
    commands.create_due_runs(workflow.next_run_at)
    run = workflow.runs.get()
    assert (run.params, run.owner) == ({"n": 3}, world.users["member"])


@pytest.mark.django_db
def test_what_was_missed_is_left_out_without_catchup(world: World) -> None:
    workflow = push(world)
    commands.create_due_runs(utc("2026-03-20T08:00"))
    assert logical_times(workflow) == ["03-19T00"]
    workflow.refresh_from_db()
    assert workflow.next_run_at == utc("2026-03-21")


@pytest.mark.django_db
def test_what_was_missed_is_caught_up_in_order(world: World) -> None:
    workflow = push(world, catchup=True, start_date="2026-03-10")
    assert commands.create_due_runs(NOW) is False
    assert logical_times(workflow) == ["03-10T00", "03-11T00", "03-12T00", "03-13T00"]
    commands.create_due_runs(utc("2026-03-15"))
    assert logical_times(workflow)[-1] == "03-14T00"


@pytest.mark.django_db
def test_catching_up_is_bounded(world: World, monkeypatch: Any) -> None:
    from apps.workflows.commands import scheduled

    monkeypatch.setattr(scheduled, "RUNS_MAX", 10)
    monkeypatch.setattr(scheduled, "BACKLOG_MAX", 25)
    workflow = push(world, catchup=True, start_date="2026-01-01", schedule="@hourly")
    assert commands.create_due_runs(NOW) is True
    assert workflow.runs.count() == 10
    assert commands.create_due_runs(NOW) is True
    assert commands.create_due_runs(NOW) is False  # Five more fill the queue.
    assert commands.create_due_runs(NOW) is False
    assert workflow.runs.count() == 25
    Run.objects.filter(workflow=workflow).update(state="succeeded")
    assert commands.create_due_runs(NOW) is True
    assert logical_times(workflow)[25] == "01-02T01"


@pytest.mark.django_db
def test_a_past_start_date_without_catchup_begins_with_the_latest(world: World) -> None:
    workflow = push(world, start_date="2026-01-01")
    commands.create_due_runs(NOW)
    assert logical_times(workflow) == ["03-13T00"]
    future = push(world, name="later", start_date="2026-04-01")
    assert (future.next_logical_time, future.next_run_at) == (utc("2026-04-01"), utc("2026-04-02"))


@pytest.mark.django_db
def test_a_paused_workflow_does_nothing_and_goes_on_where_it_stood(world: World) -> None:
    workflow = push(world, catchup=True, start_date="2026-03-12")
    commands.create_due_runs(utc("2026-03-13T01:00"))
    commands.pause(actor=SYSTEM, workflow_id=workflow.pk)
    commands.create_due_runs(NOW)
    step()
    assert list(workflow.runs.values_list("state", flat=True)) == ["queued"]
    commands.resume(actor=SYSTEM, workflow_id=workflow.pk)
    commands.create_due_runs(NOW)
    assert logical_times(workflow) == ["03-12T00", "03-13T00"]
    step()
    assert set(workflow.runs.values_list("state", flat=True)) == {"running"}


@pytest.mark.django_db
def test_a_new_version_keeps_the_timetable_unless_it_changes(world: World) -> None:
    workflow = push(world)
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("b"), schedule="@daily"))
    workflow.refresh_from_db()
    assert workflow.next_run_at == utc("2026-03-15")
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("b"), schedule="@hourly"))
    workflow.refresh_from_db()
    assert workflow.next_run_at is not None and workflow.next_run_at > utc("2026-03-15")
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("b")))
    workflow.refresh_from_db()
    assert (workflow.schedule, workflow.next_run_at) == ("", None)


@pytest.mark.django_db
def test_the_database_takes_a_logical_time_once(world: World) -> None:
    workflow = push(world)
    commands.create_due_runs(utc("2026-03-15"))
    run = workflow.runs.get()
    run.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        run.save()
    # A timetable that was set back makes nothing twice.
    plan_timetable(workflow, NOW)
    workflow.save()
    commands.create_due_runs(utc("2026-03-16T01:00"))
    assert logical_times(workflow) == ["03-14T00", "03-15T00"]


@pytest.mark.django_db
def test_one_workflow_that_cannot_be_scheduled_holds_up_no_other(world: World, caplog: Any) -> None:
    broken, fine = push(world, name="broken"), push(world, name="fine")
    Workflow.objects.filter(pk=broken.pk).update(schedule="never")
    commands.create_due_runs(utc("2026-03-15"))
    assert (broken.runs.count(), fine.runs.count()) == (0, 1)
    assert f"workflow {broken.pk}" in caplog.text
