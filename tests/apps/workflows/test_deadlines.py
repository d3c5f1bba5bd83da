"""Deadlines that pass and are kept, and the time limit of a run."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.clearing import Choice
from apps.workflows.models import Deadline, Run, Workflow
from tests.personas import World

from .driver import bash, begin, definition, end, finish, start, states, step

pytestmark = pytest.mark.usefixtures("redis_empty")


def missed() -> list[dict[str, Any]]:
    return list(Event.objects.filter(verb="run.deadline_missed").order_by("id").values_list("facts", flat=True))


def passed(**after: int) -> None:
    commands.pass_due(timezone.now() + timedelta(**after))


def test_a_run_that_ends_in_time_misses_nothing(world: World) -> None:
    run = start(world.vision, bash("a"), deadline="2h")
    assert finish(run) == "succeeded"
    passed(hours=3)
    assert missed() == [] and not Deadline.objects.exists()


def test_a_run_that_goes_on_has_missed_it_once_and_goes_on(world: World) -> None:
    run = start(world.vision, bash("a"), deadline="2h")
    passed(hours=1)
    assert missed() == []
    passed(hours=3)
    passed(hours=4)
    [facts] = missed()
    assert facts["after"] == "2h" and "task" not in facts
    assert Deadline.objects.get().missed_at is not None
    run.refresh_from_db()
    assert run.state == "running" and finish(run) == "succeeded"


def test_a_task_has_its_own(world: World) -> None:
    run = start(world.vision, bash("quick", deadline="1h"), bash("slow", deadline={"after": "1h"}))
    begin(run, "quick")
    step()
    end(run, "quick")
    step()
    passed(hours=2)
    assert [facts["task"] for facts in missed()] == ["slow"]
    assert list(Deadline.objects.values_list("task", flat=True)) == ["slow"]


def test_a_run_in_the_queue_misses_what_counts_from_its_schedule(world: World) -> None:
    fields = {"schedule": "@daily", "start_date": "2026-01-01", "catchup": False}
    made = definition(bash("a"), deadline={"after": "1h", "from": "scheduled"}, **fields)
    commands.push(actor=SYSTEM, tenant=world.vision, definition=made)
    first, now = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    Workflow.objects.update(next_run_at=now, next_logical_time=first)
    commands.create_due_runs(now + timedelta(minutes=5))
    due = Deadline.objects.get()
    assert due.since == datetime(2026, 1, 3, tzinfo=UTC) and due.due_at == datetime(2026, 1, 3, 1, tzinfo=UTC)
    commands.pass_due(datetime(2026, 1, 3, 2, tzinfo=UTC))
    assert len(missed()) == 1 and Run.objects.get().state == "queued"


def test_of_a_run_by_hand_it_counts_from_its_making(world: World) -> None:
    logical = datetime(2020, 1, 1, tzinfo=UTC)
    made = definition(bash("a"), deadline={"after": "1h", "from": "scheduled"})
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=made)
    commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk, logical_time=logical)
    passed(minutes=50)
    assert missed() == []
    passed(minutes=70)
    assert len(missed()) == 1


def test_a_run_that_is_cleared_begins_anew(world: World) -> None:
    run = start(world.vision, bash("a"), deadline="2h")
    passed(hours=3)
    finish(run)
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("a",)))
    step()
    again = Deadline.objects.get()
    assert again.missed_at is None and again.due_at is not None
    passed(hours=3)
    assert len(missed()) == 2


def test_one_that_is_cleared_onto_a_version_without_deadlines_has_none(world: World) -> None:
    run = start(world.vision, bash("a"), deadline="2h")
    finish(run)
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a")))
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("a",), newest=True))
    step()
    assert not Deadline.objects.exists()


def test_at_its_time_limit_a_run_fails_with_a_reason(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), time_limit="3h")
    begin(run, "a")
    step()
    passed(hours=2)
    run.refresh_from_db()
    assert run.state == "running"
    passed(hours=4)
    run.refresh_from_db()
    assert run.state == "failed" and run.ended_at is not None
    assert states(run) == {"a": "cancelled", "b": "cancelled"}
    event = Event.objects.get(verb="run.failed")
    assert event.reason == "The run went on for longer than its time limit of 3h." and event.subject_id == run.pk
    assert Job.objects.get(task__run=run, task__name="a").state in ("cancelling", "cancelled")
    assert not Event.objects.filter(verb="run.cancelled").exists()
    passed(hours=5)
    assert Event.objects.filter(verb="run.failed").count() == 1


def test_a_time_limit_and_a_deadline_stand_beside_each_other(world: World) -> None:
    start(world.vision, bash("a"), time_limit="2h", deadline="1h")
    assert sorted(Deadline.objects.values_list("kind", "after_seconds")) == [("deadline", 3600), ("time_limit", 7200)]


def test_one_that_is_near_is_waited_for(world: World, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        start(world.vision, bash("a"), deadline="10s")
    assert "deadlines" in loops._alarms
    with django_capture_on_commit_callbacks(execute=True):
        start(world.vision, bash("a"), name="other", deadline="10h")
    assert loops._alarms["deadlines"][0] < timezone.now() + timedelta(seconds=15)


def test_without_deadlines_nothing_is_asked_or_written(world: World) -> None:
    """Making, starting and ending a run never touches the table."""
    with CaptureQueriesContext(connection) as queries:
        finish(start(world.vision, bash("a"), bash("b", "a")))
    assert not [query for query in queries.captured_queries if "workflows_deadline" in query["sql"]]
    assert not [query for query in queries.captured_queries if "notifications_" in query["sql"]]


def test_who_sees_them(world: World, api: Any) -> None:
    run = start(world.vision, bash("a"), deadline="2h", time_limit="3h")
    rows = api.member.get(f"runs/{run.pk}/deadlines").json()["results"]
    assert [(row["kind"], row["after"]) for row in rows] == [("time_limit", 10800), ("deadline", 7200)]
    assert api.stranger.get(f"runs/{run.pk}/deadlines").status_code == 404
