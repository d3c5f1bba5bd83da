"""What becomes due by the clock (a retry, a scheduled run) starts then, and not with the next tick."""

import queue
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.models import Workflow
from apps.workflows.tasks import timetable
from tests.apps.workflows.driver import bash, definition
from tests.personas import World, soon
from tests.work import cycle, fresh, granted, members, report, submit

PATIENCE = 5.0
# Well before the next tick.
SOON = timedelta(seconds=1)


class Rung:
    """The wakes that alarms send, each with the time at which it came."""

    def __init__(self) -> None:
        self.wakes: queue.Queue[tuple[str, datetime]] = queue.Queue()

    def __call__(self, name: str) -> None:
        self.wakes.put((name, timezone.now()))

    def next(self) -> tuple[str, datetime]:
        return self.wakes.get(timeout=PATIENCE)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> Rung:
    found = Rung()
    monkeypatch.setattr(loops, "_send", found)
    return found


def test_the_earliest_time_counts_and_a_time_is_asked_for_once(rung: Rung) -> None:
    first, later = soon(0.2), soon(60)
    for at in (later, first, later, first):
        loops.wake_at("schedule", at)
    name, at = rung.next()
    assert name == "schedule"
    assert timedelta(0) <= at - first < SOON
    assert rung.wakes.empty() and loops._alarms == {}


def test_loops_have_alarms_of_their_own(rung: Rung) -> None:
    loops.wake_at("schedule", soon(0.1))
    loops.wake_at("timetable", soon(0.05))
    assert [rung.next()[0], rung.next()[0]] == ["timetable", "schedule"]


def test_a_retry_starts_when_its_back_off_is_over(world: World, rung: Rung) -> None:
    world.node()
    job = granted(world, retries={"limit": 1, "delay": "1s", "jitter": 0})
    report(members(job)[0], exit_code=1, reason="exited")
    assert fresh(job).state == "pending" and fresh(job).not_before is not None
    due = soon(0.3)
    Job.objects.filter(pk=job.pk).update(not_before=due)

    cycle()
    assert fresh(job).state == "pending"
    name, at = rung.next()
    assert name == "schedule" and timedelta(0) <= at - due < SOON
    cycle()
    assert fresh(job).state == "granted"


def test_the_next_of_several_retries_is_found_among_jobs_that_wait_for_room(world: World, rung: Rung) -> None:
    submit(world)  # No node: it waits.
    near, far, held = submit(world), submit(world), submit(world)
    due = soon(0.2)
    Job.objects.filter(pk=held.pk).update(not_before=soon(0.05), held=True)
    Job.objects.filter(pk=near.pk).update(not_before=due)
    Job.objects.filter(pk=far.pk).update(not_before=soon(3600))
    cycle()
    assert loops._alarms["schedule"][0] == due
    assert rung.next()[1] >= due


def test_a_far_retry_keeps_no_alarm(world: World, rung: Rung) -> None:
    job = submit(world)
    Job.objects.filter(pk=job.pk).update(not_before=soon(3600))
    cycle()
    assert loops._alarms == {}


def test_a_scheduled_run_is_made_at_its_time(world: World, rung: Rung) -> None:
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), schedule="@daily"))
    due = soon(0.3)
    Workflow.objects.update(next_run_at=due)

    timetable()
    assert not pushed.workflow.runs.exists()
    name, at = rung.next()
    assert name == "timetable" and timedelta(0) <= at - due < SOON
    timetable()
    assert pushed.workflow.runs.count() == 1
    Workflow.objects.update(paused=True, next_run_at=soon(1))
    timetable()
    assert "timetable" not in loops._alarms
