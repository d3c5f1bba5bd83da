"""Tasks that wait for a time, a poke or another run: rows that hold no place and no process."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands, moved, tasks, waits
from apps.workflows.apply import apply
from apps.workflows.models import Run, Task, Wait, Workflow
from apps.workflows.observe import observe
from tests.apps.workflows.driver import bash, definition, empty, end, finish, look, start, states
from tests.personas import World

pytestmark = pytest.mark.django_db


def wait(name: str, kind: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": kind, "upstream": list(upstream), **fields}


def sensor(name: str, *upstream: str, **poke: Any) -> dict[str, Any]:
    """The bundle that a function needs is not looked at here."""
    fields = {"kind": "python", "file": "flow.py", "function": "look", "poke": poke}
    return {"id": name, "upstream": list(upstream), **fields}


def script_sensor(name: str, *upstream: str, **poke: Any) -> dict[str, Any]:
    """A script that writes whether it is done to RM_RESULT."""
    return {**bash(name, *upstream), "poke": poke}


def task(run: Run, name: str, index: int = -1) -> Task:
    return Task.objects.get(run=run, name=name, index=index)


def later(seconds: float) -> None:
    """Let all waits and deadlines come nearer by this time."""
    for row in Wait.objects.all():
        gone = timedelta(seconds=seconds)
        row.since -= gone
        row.due_at = row.due_at and row.due_at - gone
        row.deadline = row.deadline and row.deadline - gone
        row.save()


@pytest.fixture
def bundle(world: World) -> str:
    from apps.execution.models import Bundle

    return Bundle.objects.create(tenant=world.vision, sha256="a" * 64, size=1).sha256


def test_a_time_is_waited_for_without_a_job(world: World) -> None:
    pause = wait("pause", "wait_for", arguments={"duration": {"value": "10m"}})
    run = start(world.vision, pause, bash("b", "pause"), max_active_tasks=1)
    assert states(run) == {"pause": "deferred", "b": "waiting"}
    found = task(run, "pause")
    assert found.job is None and found.detail.startswith("Waits until 2")
    look(review=True)
    assert states(run)["pause"] == "deferred"
    later(600)
    look()
    assert states(run) == {"pause": "succeeded", "b": "queued"}
    assert not Wait.objects.exists()
    verbs = Event.objects.filter(subject_type="task", subject_id=found.pk).order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["task.deferred", "task.succeeded"]


@pytest.mark.parametrize(("text", "over"), [("2020-01-01T00:00:00Z", True), ("2199-01-01", False), ("00:00", True)])
def test_a_point_in_time_is_that_of_the_workflows_zone(world: World, text: str, over: bool) -> None:
    at = wait("at", "wait_until", arguments={"time": {"param": "at"}})
    schema = {"properties": {"at": {"type": "string", "default": text}}}
    run = start(world.vision, at, params=schema, timezone="Europe/Berlin")
    look()
    assert (states(run)["at"] == "succeeded") is over


def test_a_time_that_is_none_fails_and_says_so(world: World) -> None:
    at = wait("at", "wait_until", arguments={"time": {"result": "a"}})
    run = start(world.vision, bash("a"), at)
    end(run, "a", result="soon")
    look()
    assert states(run)["at"] == "failed" and "is not a time" in task(run, "at").detail


def test_a_sensor_is_poked_at_its_times_and_gives_its_value(world: World, bundle: str) -> None:
    tasks = [sensor("look", interval=10, factor=2.0), bash("use", arguments={"x": {"result": "look"}})]
    run = start(world.vision, *tasks, bundle=bundle)
    assert states(run)["look"] == "queued"
    first = task(run, "look").job_id
    for pokes, seconds in ((1, 10), (2, 20), (3, 40)):
        end(run, "look", result={"done": False, "value": None})
        look()
        row = task(run, "look")
        assert row.state == "deferred" and "Poked " in row.detail
        left = (Wait.objects.get().due_at - timezone.now()).total_seconds()
        assert seconds - 2 < left <= seconds and Wait.objects.get().looks == pokes
        later(seconds - 5)
        look()
        assert states(run)["look"] == "deferred"
        later(5)
        look()
        assert states(run)["look"] == "queued"
    assert Job.objects.filter(origin=f"run:{run.pk}").count() == 4 and task(run, "look").job_id != first
    end(run, "look", result={"done": True, "value": [1]})
    look()
    assert states(run) == {"look": "succeeded", "use": "queued"}
    assert Job.objects.get(task__run=run, task__name="use").spec["inputs"] == {"x": [1]}
    assert not Wait.objects.exists() and finish(run) == "succeeded"


@pytest.mark.parametrize(("soft", "state"), [(False, "failed"), (True, "skipped")])
def test_a_sensor_has_a_last_poke_and_ends(world: World, soft: bool, state: str) -> None:
    run = start(world.vision, script_sensor("look", interval=60, timeout=90, soft_fail=soft))
    for _ in range(2):
        end(run, "look", result={"done": False, "value": None})
        look()
        assert states(run)["look"] == "deferred"
        later(60)
        look()
        assert states(run)["look"] == "queued"
    end(run, "look", result={"done": False, "value": None})
    look()
    assert (states(run)["look"], task(run, "look").detail) == (state, "Its time of 90s is over: 3 pokes found nothing.")


def test_a_sensor_that_fails_or_answers_nonsense_fails(world: World, bundle: str) -> None:
    run = start(world.vision, sensor("a"), sensor("b"), bundle=bundle)
    end(run, "a", "failed")
    end(run, "b", result=5)
    look()
    assert set(states(run).values()) == {"failed"}
    assert "must say whether it is done" in task(run, "b").detail and not Wait.objects.exists()


def test_mapped_sensors_wait_each_for_itself(world: World, bundle: str) -> None:
    over = {"map": {"over": {"x": {"value": [1, 2]}}}}
    tasks = [{**sensor("look", interval=5), **over}, bash("use", arguments={"all": {"result": "look"}})]
    run = start(world.vision, *tasks, bundle=bundle)
    end(run, "look", result={"done": False, "value": None}, index=0)
    end(run, "look", result={"done": True, "value": "b"}, index=1)
    look()
    assert (states(run)["look[0]"], states(run)["look[1]"]) == ("deferred", "succeeded")
    later(5)
    look()
    assert Job.objects.get(task__run=run, task__name="look", task__index=0).spec["inputs"] == {"x": 1}
    end(run, "look", result={"done": True, "value": "a"}, index=0)
    look()
    assert Job.objects.get(task__run=run, task__name="use").spec["inputs"] == {"all": ["a", "b"]}


def other(world: World, *tasks: dict[str, Any], name: str = "other", **fields: Any) -> Workflow:
    data = definition(*(tasks or (bash("x"),)), name=name, **fields)
    return commands.push(actor=SYSTEM, tenant=world.vision, definition=data).workflow


def awaiting(**options: Any) -> dict[str, Any]:
    return wait("w", "wait_for_run", wait_for_run={"workflow": "other", **options})


def settle() -> None:
    for _ in range(3):
        look()


@pytest.mark.parametrize(("ends", "state"), [("succeeded", "succeeded"), ("failed", "failed")])
def test_a_run_is_waited_for_by_its_logical_time(world: World, ends: str, state: str) -> None:
    target = other(world)
    run = start(world.vision, awaiting(), bash("use", arguments={"r": {"result": "w"}}))
    settle()
    assert states(run)["w"] == "deferred"
    made = commands.trigger(actor=SYSTEM, workflow_id=target.pk, logical_time=run.logical_time)
    settle()
    assert states(run)["w"] == "deferred"
    end(made, "x", ends)
    look()
    look()
    assert states(run)["w"] == state
    if state == "succeeded":
        inputs = Job.objects.get(task__run=run, task__name="use").spec["inputs"]
        assert inputs == {"r": {"run": made.pk, "state": "succeeded"}}
    else:
        assert task(run, "w").detail == f"Run {made.pk} of other has failed."


def test_a_run_that_has_ended_already_or_is_cancelled_ends_the_wait(world: World) -> None:
    target = other(world)
    day = timedelta(days=1)
    early = commands.trigger(actor=SYSTEM, workflow_id=target.pk, logical_time=timezone.now())
    fields = {"arguments": {"logical_time": {"value": early.logical_time.isoformat()}}}
    first = start(world.vision, {**awaiting(allowed=["cancelled"]), **fields}, name="first")
    commands.cancel_run(actor=SYSTEM, run_id=early.pk)
    look()
    assert states(first)["w"] == "succeeded"
    second = start(world.vision, {**awaiting(), **fields}, name="second")
    settle()
    assert states(second)["w"] == "failed"
    third = start(world.vision, {**awaiting(), "arguments": {"before": {"value": "1d"}}}, name="third")
    settle()
    assert Wait.objects.get(task__run=third).logical_time == third.logical_time - day


def test_nobody_is_waited_for_without_end(world: World) -> None:
    other(world)
    run = start(world.vision, awaiting(timeout=60), bash("x"))
    settle()
    later(60)
    look()
    assert states(run)["w"] == "failed"
    assert task(run, "w").detail == "Its time of 1m is over: there was no such run."
    gone = start(world.vision, wait("w", "wait_for_run", wait_for_run={"workflow": "nobody"}), name="gone")
    assert states(gone)["w"] == "failed" and "no such workflow" in task(gone, "w").detail


def trigger(name: str = "t", workflow: str = "other", *upstream: str, **fields: Any) -> dict[str, Any]:
    extra = {key: fields.pop(key) for key in ("arguments", "map") if key in fields}
    return wait(name, "trigger_run", *upstream, trigger_run={"workflow": workflow, **fields}, **extra)


def test_a_run_is_started_with_parameters_and_waited_for(world: World) -> None:
    other(world, params={"properties": {"n": {"type": "integer"}}})
    arguments = {"n": {"result": "a"}}
    run = start(world.vision, bash("a"), trigger(wait=True, logical_time="own", arguments=arguments), empty("e", "t"))
    end(run, "a", result=5)
    settle()
    child = Run.objects.get(workflow__name="other")
    assert (child.params, child.trigger, child.depth, child.logical_time) == ({"n": 5}, "workflow", 1, run.logical_time)
    assert child.cause == task(run, "t") and states(run)["t"] == "deferred"
    end(child, "x")
    look()
    look()
    run.refresh_from_db()
    assert run.state == "succeeded" and task(run, "t").result == {"run": child.pk, "state": "succeeded"}


def test_a_run_may_be_started_and_left_alone_also_for_each_item(world: World) -> None:
    other(world, params={"properties": {"n": {"type": "integer"}}})
    both = {"over": {"n": {"value": [1, 2]}}}
    run = start(world.vision, trigger(map=both), bash("e", arguments={"r": {"result": "t"}}))
    assert states(run)["t"] == "deferred"
    settle()
    children = list(Run.objects.filter(workflow__name="other").order_by("id"))
    assert [child.params["n"] for child in children] == [1, 2]
    inputs = Job.objects.get(task__run=run, task__name="e").spec["inputs"]
    assert [item["run"] for item in inputs["r"]] == [child.pk for child in children]


def test_wrong_parameters_of_the_other_workflow_fail_the_task(world: World) -> None:
    other(world)
    run = start(world.vision, trigger(arguments={"nn": {"value": 1}}))
    assert states(run)["t"] == "failed" and "There is no such parameter" in task(run, "t").detail
    assert Run.objects.count() == 1


def test_cancelling_a_run_cancels_what_it_waits_for(world: World) -> None:
    other(world)
    run = start(world.vision, trigger(wait=True), trigger("free"))
    settle()
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    found = dict(Run.objects.filter(workflow__name="other").values_list("cause__name", "state"))
    assert found == {"t": "cancelled", "free": "running"}
    assert not Wait.objects.exists()


def test_a_cancelled_child_fails_the_task_that_waits(world: World) -> None:
    other(world)
    run = start(world.vision, trigger(wait=True))
    settle()
    commands.cancel_run(actor=SYSTEM, run_id=Run.objects.get(workflow__name="other").pk)
    look()
    assert states(run)["t"] == "failed" and "has been cancelled" in task(run, "t").detail


def test_a_circle_of_workflows_is_stopped(world: World) -> None:
    other(world, trigger("t", "etl"))
    run = start(world.vision, trigger("t", "other"))
    for _ in range(60):
        look()
    assert Run.objects.count() == 1 + waits.DEPTH_MAX
    last = Run.objects.order_by("-id")[0]
    assert (last.depth, last.state) == (waits.DEPTH_MAX, "failed")
    assert "etl → other → etl" in task(last, "t").detail and "in a circle" in task(last, "t").detail
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_a_cancelled_run_forgets_its_waits(world: World) -> None:
    run = start(world.vision, wait("pause", "wait_for", arguments={"duration": {"value": "1d"}}))
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    assert states(run)["pause"] == "cancelled" and not Wait.objects.exists()


def test_what_is_due_is_told_and_found_by_an_index(world: World, monkeypatch: Any, redis_empty: None) -> None:
    pause = wait("pause", "wait_for", arguments={"duration": {"value": "10m"}})
    run = start(world.vision, pause)
    told: list[int] = []
    monkeypatch.setattr(moved, "note_waits", told.extend)
    assert waits.note_due(timezone.now()) == 0 and told == []
    later(595)
    due = waits.next_due(timezone.now())
    assert due is not None and 0 < (due - timezone.now()).total_seconds() < 6
    later(5)
    assert waits.note_due(timezone.now()) == 1
    assert told == [task(run, "pause").pk]
    monkeypatch.setattr(moved, "take", lambda limit: moved.Told([], told, [], full=False))
    apply(observe(search=False, review=False), timezone.now())
    assert states(run)["pause"] == "succeeded"


def test_workflows_of_other_tenants_are_not_there(world: World) -> None:
    data = definition(bash("x"), name="other")
    commands.push(actor=SYSTEM, tenant=world.speech, definition=data)
    run = start(world.vision, trigger())
    assert states(run)["t"] == "failed" and "this tenant has no such workflow" in task(run, "t").detail


def test_the_loop_goes_on_with_what_is_due(world: World, redis_empty: None) -> None:
    run = start(world.vision, wait("pause", "wait_for", arguments={"duration": {"value": "10m"}}), empty("e", "pause"))
    later(600)
    assert tasks.waits() is False
    assert states(run) == {"pause": "succeeded", "e": "succeeded"}


def test_many_that_wait_cost_nothing(world: World, django_assert_num_queries: Any) -> None:
    pauses = [wait(f"w{n}", "wait_for", arguments={"duration": {"value": "1d"}}) for n in range(200)]
    start(world.vision, *pauses)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE workflows_wait")
        cursor.execute(
            "EXPLAIN SELECT task_id FROM workflows_wait WHERE due_at <= now() ORDER BY due_at LIMIT 2000"
        )
        assert "wait_due" in " ".join(row[0] for row in cursor.fetchall())
    with django_assert_num_queries(1):
        assert waits.note_due(timezone.now()) == 0
