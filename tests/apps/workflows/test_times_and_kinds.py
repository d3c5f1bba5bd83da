"""Kinds of tasks together with timetables, datasets and templates: who waits for what first, and what is handed on."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.execution.models import Bundle
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.dataset_models import DatasetEvent
from apps.workflows.models import PastWait, Run, Task, Wait, Workflow
from rmctl.spec.templates import KEY
from tests.apps.workflows.driver import bash, definition, end, finish, look, start, states
from tests.apps.workflows.test_approvals import answer, ask
from tests.apps.workflows.test_schedules import NOW, push, two_runs, utc
from tests.apps.workflows.test_waits import later, sensor, task, trigger, wait
from tests.personas import World

pytestmark = pytest.mark.django_db

URI = "s3://lake/a"


@pytest.fixture
def bundle(world: World) -> str:
    return Bundle.objects.create(tenant=world.vision, sha256="a" * 64, size=1).sha256


def again() -> None:
    """Passes until what the last ones told Redis has been followed."""
    for _ in range(3):
        look(review=True)


# The past


def test_a_wait_begins_only_when_the_run_before_has_ended_well(world: World) -> None:
    pause = wait("pause", "wait_for", "a", arguments={"duration": {"value": "10m"}}, depends_on_past=True)
    first, second = two_runs(world, bash("a"), pause)
    end(second, "a")
    again()
    assert states(second)["pause"] == "waiting" and task(second, "pause").detail.startswith("Waits for pause of")
    end(first, "a")
    again()
    assert (states(first)["pause"], states(second)["pause"]) == ("deferred", "waiting")
    later(600)
    again()
    assert (states(first)["pause"], states(second)["pause"]) == ("succeeded", "deferred")
    left = Wait.objects.get().due_at - timezone.now()
    assert timedelta(minutes=9) < left <= timedelta(minutes=10) and not PastWait.objects.exists()
    later(600)
    again()
    assert [run.state for run in Run.objects.order_by("id")] == ["succeeded", "succeeded"]


def test_a_sensor_asks_for_the_run_before_once(world: World) -> None:
    sha = Bundle.objects.create(tenant=world.vision, sha256="a" * 64, size=1).sha256
    workflow = push(
        world,
        schedule="@daily",
        catchup=True,
        start_date="2026-03-12",
        bundle=sha,
        tasks=[sensor("look", interval=10) | {"depends_on_past": True}],
    )
    commands.create_due_runs(NOW)
    again()
    first, second = workflow.runs.order_by("logical_time")
    assert (states(first), states(second)) == ({"look": "queued"}, {"look": "waiting"})
    end(first, "look", result={"done": True})
    again()
    assert states(second) == {"look": "queued"}
    end(second, "look", result={"done": False})
    again()
    assert states(second) == {"look": "deferred"}
    # Whatever becomes of the run before now, this one has begun.
    first.tasks.update(state="failed")
    later(10)
    again()
    assert states(second) == {"look": "queued"} and not PastWait.objects.exists()


def test_cancelling_a_run_that_waits_for_the_one_before(world: World) -> None:
    first, second = two_runs(world, bash("a", depends_on_past=True))
    commands.cancel_run(actor=SYSTEM, run_id=second.pk)
    end(first, "a")
    again()
    second.refresh_from_db()
    assert (second.state, states(second)) == ("cancelled", {"a": "cancelled"}) and not PastWait.objects.exists()


def test_runs_that_are_started_by_others_have_no_run_before(world: World) -> None:
    first, second = two_runs(world, bash("x", depends_on_past=True))
    starter = definition(trigger("t", "etl", logical_time="own"), name="starter")
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=starter).workflow
    commands.trigger(actor=SYSTEM, workflow_id=pushed.pk, logical_time=second.logical_time)
    again()
    child = Run.objects.get(trigger="workflow")
    # A third run with the logical time of a scheduled one: only timetables are held to one for each.
    assert child.logical_time == second.logical_time and states(child) == {"x": "queued"}
    end(child, "x")
    again()
    assert states(second) == {"x": "waiting"}
    end(first, "x")
    again()
    assert states(second) == {"x": "queued"}


# Runs that tasks start


def test_the_interval_of_a_started_run_is_the_last_that_was_complete(world: World) -> None:
    push(world, name="other", schedule="@daily", tasks=[bash("x", outlets=[URI])])
    starter = commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(trigger(logical_time="own"), name="starter")
    ).workflow
    commands.trigger(actor=SYSTEM, workflow_id=starter.pk, logical_time=utc("2026-03-14T09:30"))
    again()
    child = Run.objects.get(workflow__name="other")
    interval = (child.data_interval_start, child.data_interval_end)
    assert interval == (utc("2026-03-13T00:00"), utc("2026-03-14T00:00"))
    env = Job.objects.get(task__run=child).spec["groups"][0]["env"]
    assert env["RM_DATA_INTERVAL_START"] == "2026-03-13T00:00:00+00:00"
    end(child, "x", result={"rows": 2})
    again()
    event = DatasetEvent.objects.get()
    assert (event.run, event.task, event.extra) == (child, "x", {"rows": 2})


def test_a_workflow_without_times_gives_a_started_run_no_interval(world: World) -> None:
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("x"), name="other"))
    start(world.vision, trigger())
    again()
    child = Run.objects.get(workflow__name="other")
    assert (child.data_interval_start, child.data_interval_end) == (None, None)


# Datasets


def test_what_ends_without_a_job_updates_datasets_too(world: World) -> None:
    run = start(world.vision, ask() | {"outlets": [URI]})
    answer(world, run)
    again()
    assert states(run) == {"ask": "succeeded"}
    assert DatasetEvent.objects.get().extra == {"option": "approve", "values": {}, "by": "max"}


def test_a_sensor_updates_its_dataset_once_with_its_value(world: World, bundle: str) -> None:
    run = start(world.vision, sensor("look", interval=10) | {"outlets": [URI]}, bundle=bundle)
    end(run, "look", result={"done": False, "value": {"rows": 0}})
    again()
    assert not DatasetEvent.objects.exists()
    later(10)
    again()
    end(run, "look", result={"done": True, "value": {"rows": 7}})
    again()
    assert states(run) == {"look": "succeeded"} and DatasetEvent.objects.get().extra == {"rows": 7}


def test_a_run_by_datasets_waits_and_pulls_results_of_waits(world: World, bundle: str) -> None:
    """A dataset makes the run, a sensor and a question hand their results to a template."""
    templated: dict[str, Any] = {
        "script": "echo {{ ti.xcom_pull('look') }} {{ ti.xcom_pull('ask')['by'] }} {{ triggering_dataset_events }}"
    }
    tasks = [sensor("look", interval=10), ask("look"), bash("use", "ask") | templated]
    fields = definition(*tasks, name="reader", datasets=URI, bundle=bundle)
    reader: Workflow = commands.push(actor=SYSTEM, tenant=world.vision, definition=fields).workflow
    commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=URI, extra={"rows": 7})
    commands.create_dataset_runs(timezone.now())
    again()
    run = reader.runs.get()
    end(run, "look", result={"done": True, "value": [1]})
    again()
    answer(world, run)
    again()
    inputs = Job.objects.get(task__run=run, task__name="use").spec["inputs"][KEY]
    assert inputs["results"]["look"] == [1] and inputs["results"]["ask"]["by"] == "max"
    assert inputs["events"][URI][0]["extra"] == {"rows": 7}
    assert finish(run) == "succeeded" and Task.objects.get(run=run, name="use").state == "succeeded"
