"""Triggering, pinning, cancelling and pausing."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.models import Run, Task, Workflow
from tests.apps.workflows.driver import bash, begin, definition, end, finish, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db

PARAMS = {
    "properties": {
        "models": {"type": "integer", "default": 5, "minimum": 1},
        "path": {"type": "string"},
    },
    "required": ["path"],
}


@pytest.fixture
def workflow(world: World) -> Workflow:
    tasks = [bash("a"), bash("b", "a")]
    return commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(*tasks, params=PARAMS)).workflow


def test_a_trigger_queues_a_run_with_all_of_its_tasks(world: World, workflow: Workflow) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    run = commands.trigger(
        actor=world.actor("member"),
        workflow_id=workflow.pk,
        params={"path": "x"},
        note="again",
        logical_time=at,
    )
    run.refresh_from_db()
    assert (run.state, run.trigger, run.owner, run.tenant) == (
        "queued", "manual", world.users["member"], world.vision
    )  # fmt: skip
    assert (run.params, run.note, run.logical_time) == ({"path": "x", "models": 5}, "again", at)
    assert states(run) == {"a": "waiting", "b": "waiting"}
    assert Event.objects.get(verb="run.created").facts["version"] == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "params.path"),
        ({"path": 3}, "params.path"),
        ({"path": "x", "models": 0}, "params.models"),
        ({"path": "x", "models": "5"}, "params.models"),
        ({"path": "x", "model": 5}, "params.model"),
        ({"path": "a\0b"}, "params.path"),
    ],
)
def test_wrong_parameters_are_refused(workflow: Workflow, given: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        commands.trigger(actor=SYSTEM, workflow_id=workflow.pk, params=given)
    assert field in [error["field"] for error in caught.value.errors]
    assert not Run.objects.exists()


@pytest.mark.parametrize(("persona", "error"), [("auditor", Forbidden), ("stranger", NotFound), ("nobody", NotFound)])
def test_only_members_trigger_pause_and_cancel(
    world: World, workflow: Workflow, persona: str, error: type[Exception]
) -> None:
    run = commands.trigger(actor=SYSTEM, workflow_id=workflow.pk, params={"path": "x"})
    actor = world.actor(persona)
    with pytest.raises(error):
        commands.trigger(actor=actor, workflow_id=workflow.pk, params={"path": "x"})
    with pytest.raises(error):
        commands.pause(actor=actor, workflow_id=workflow.pk)
    with pytest.raises(error):
        commands.resume(actor=actor, workflow_id=workflow.pk)
    with pytest.raises(error):
        commands.cancel_run(actor=actor, run_id=run.pk)


def test_a_run_is_pinned_to_its_version(world: World) -> None:
    run = start(world.vision, bash("a", script="echo one"), bash("b", "a", script="echo one"))
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", script="echo two"), bash("new")))
    end(run, "a")
    step()
    assert Job.objects.get(task__run=run, task__name="b").spec["groups"][0]["script"] == "echo one"
    assert finish(run) == "succeeded"
    newer = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id)
    older = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id, version=1)
    step()
    assert (newer.version.number, set(states(newer))) == (2, {"a", "new"})
    assert (older.version.number, set(states(older))) == (1, {"a", "b"})
    with pytest.raises(NotFound, match="has no version 7"):
        commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id, version=7)


def test_cancelling_ends_the_run_its_tasks_and_their_jobs(world: World) -> None:
    tasks = [bash("done"), bash("runs", "done"), bash("waits", "done"), bash("later", "runs")]
    run = start(world.vision, *tasks)
    end(run, "done")
    step()
    begin(run, "runs")
    step()
    commands.cancel_run(actor=world.actor("member"), run_id=run.pk, reason="wrong data")
    run.refresh_from_db()
    assert run.state == "cancelled" and run.ended_at
    assert states(run) == {
        "done": "succeeded", "runs": "cancelled", "waits": "cancelled", "later": "cancelled"
    }  # fmt: skip
    jobs = {job.task.name: job.state for job in Job.objects.filter(task__run=run).select_related("task")}
    assert jobs == {"done": "succeeded", "runs": "cancelling", "waits": "cancelled"}
    event = Event.objects.get(verb="run.cancelled")
    assert (event.actor, event.reason) == ("user:max", "wrong data")
    assert Event.objects.filter(verb="task.cancelled").count() == 3
    end(run, "runs", "cancelled")
    assert step().jobs == 0
    with pytest.raises(Conflict, match="already"):
        commands.cancel_run(actor=SYSTEM, run_id=run.pk)


def test_a_queued_run_can_be_cancelled(workflow: Workflow) -> None:
    run = commands.trigger(actor=SYSTEM, workflow_id=workflow.pk, params={"path": "x"})
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    assert step().jobs == 0
    assert set(states(run).values()) == {"cancelled"}


def test_a_cancelled_run_makes_room_for_the_next(world: World) -> None:
    first = start(world.vision, bash("a"), max_active_runs=1)
    second = commands.trigger(actor=SYSTEM, workflow_id=first.workflow_id)
    step()
    assert states(second) == {"a": "waiting"}
    commands.cancel_run(actor=SYSTEM, run_id=first.pk)
    step()
    assert states(second) == {"a": "queued"}


def test_people_trigger_a_paused_workflow_and_pausing_twice_is_one_event(world: World) -> None:
    run = start(world.vision, bash("a"))
    for _ in range(2):
        commands.pause(actor=world.actor("member"), workflow_id=run.workflow_id, reason="holiday")
    assert Event.objects.get(verb="workflow.paused").reason == "holiday"
    other = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id)
    step()
    assert states(other) == {"a": "queued"}
    commands.resume(actor=world.actor("member"), workflow_id=run.workflow_id)
    assert Event.objects.filter(verb="workflow.resumed").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_being_cancelled_is_left_alone(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"))
    end(run, "a")
    applied: list[Any] = []

    def advance() -> None:
        try:
            applied.append(step())
        finally:
            connection.close()

    with transaction.atomic():
        commands.cancel_run(actor=SYSTEM, run_id=run.pk)
        thread = threading.Thread(target=advance)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "the loop waited for the run's lock"
    assert applied[0].jobs == 0
    step()
    assert states(run) == {"a": "cancelled", "b": "cancelled"}
    assert Task.objects.filter(run=run, name="b", job__isnull=False).count() == 0
