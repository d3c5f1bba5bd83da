"""Clearing and marking tasks of a run, and notes on it."""

from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.apply import apply
from apps.workflows.clearing import Choice, ClearPlan
from apps.workflows.models import Run, Task, TaskTry
from apps.workflows.observe import observe
from tests.apps.workflows.driver import bash, begin, definition, empty, end, end_job, finish, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db


def clear(run: Run, *tasks: str, **options: Any) -> ClearPlan:
    plan = commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(tasks, **options))
    run.refresh_from_db()
    return plan


def mark(run: Run, state: str, *tasks: str) -> None:
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=tasks, state=state)
    run.refresh_from_db()


def job_of(run: Run, name: str, index: int = -1) -> Job:
    return Job.objects.get(task__run=run, task__name=name, task__index=index)


def place(run: Run, name: str, index: int = -1) -> Job:
    """Let the job of a task run as if it had a grant."""
    begin(run, name, index)
    step()
    return job_of(run, name, index)


def failing(*names: str) -> Any:
    return lambda task: ("failed" if str(task) in names else "succeeded", None)


CHAIN = (bash("a"), bash("b", "a"), bash("c", "b"), empty("d", "c"))


def test_a_failed_task_runs_again_with_what_never_ran_because_of_it(world: World) -> None:
    run = start(world.vision, *CHAIN)
    assert finish(run, failing("b")) == "failed"
    old = job_of(run, "b")
    plan = clear(run, only_failed=True)
    assert plan.whole == ("b", "c", "d")
    assert (run.state, run.ended_at, run.started_at) == ("queued", None, None)
    assert states(run) == {"a": "succeeded", "b": "waiting", "c": "waiting", "d": "waiting"}
    step()
    run.refresh_from_db()
    assert run.state == "running"
    assert states(run) == {"a": "succeeded", "b": "queued", "c": "waiting", "d": "waiting"}
    assert job_of(run, "b") != old
    assert finish(run) == "succeeded"
    tries = list(TaskTry.objects.filter(run=run).values_list("name", "number", "state", "job"))
    assert tries == [("b", 1, "failed", old.pk), ("c", 1, "upstream_failed", None), ("d", 1, "upstream_failed", None)]
    events = Event.objects.filter(subject_type="run", subject_id=run.pk).order_by("id")
    assert list(events.values_list("verb", flat=True)) == [
        "run.created", "run.started", "run.failed", "run.cleared", "run.reopened", "run.started", "run.succeeded"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "cleared"),
    [
        ({}, ["b", "c", "d"]),
        ({"downstream": False}, ["b"]),
        ({"upstream": True, "downstream": False}, ["a", "b"]),
        ({"upstream": True}, ["a", "b", "c", "d"]),
    ],
)
def test_what_is_cleared_with_a_task(world: World, options: dict[str, bool], cleared: list[str]) -> None:
    run = start(world.vision, *CHAIN)
    assert finish(run) == "succeeded"
    assert list(clear(run, "b", **options).whole) == cleared
    now = states(run)
    assert [name for name in now if now[name] == "waiting"] == cleared
    assert finish(run) == "succeeded"
    assert sorted(TaskTry.objects.filter(run=run).values_list("name", flat=True)) == cleared


def test_a_task_alone_runs_alone(world: World) -> None:
    run = start(world.vision, *CHAIN)
    finish(run)
    before = {name: job_of(run, name).pk for name in "abc"}
    clear(run, "b", downstream=False)
    assert finish(run) == "succeeded"
    after = {name: job_of(run, name).pk for name in "abc"}
    assert {name for name in before if before[name] != after[name]} == {"b"}


def test_a_running_run_goes_on_at_once(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("other"))
    end(run, "a")
    step()
    clear(run, "a")
    # The job of `b` had not been placed, so nothing has to stop, and no pass of the loop is needed.
    assert states(run) == {"a": "queued", "b": "waiting", "other": "queued"}
    assert finish(run) == "succeeded"


def test_a_cleared_task_in_flight_stops_first_and_its_former_job_does_not_count(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"))
    old = place(run, "a")
    plan = clear(run, "a")
    assert plan.in_flight == 1
    old.refresh_from_db()
    assert old.state == "cancelling"
    task = Task.objects.get(run=run, name="a")
    assert (task.state, task.restart, task.job_id) == ("running", True, old.pk)
    step(review=True)
    assert states(run) == {"a": "running", "b": "waiting"}
    # Its processes ended well before they heard: that is the end of the old job, not of the task.
    end_job(old, "succeeded", 1)
    step()
    assert states(run) == {"a": "queued", "b": "waiting"}
    assert job_of(run, "a") != old
    assert finish(run) == "succeeded"
    assert list(TaskTry.objects.values_list("name", "state", "job")) == [("a", "cancelled", old.pk)]


def test_what_was_observed_before_the_clear_does_not_count(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"))
    end(run, "a", "failed")
    seen = observe(search=True, review=False)
    clear(run, "a")
    assert states(run) == {"a": "queued", "b": "waiting"}
    assert apply(seen, timezone.now()).failed == 0
    assert states(run) == {"a": "queued", "b": "waiting"}


def test_a_task_is_not_started_while_a_job_of_its_former_tries_stops(world: World) -> None:
    run = start(world.vision, bash("a"), bash("z"))
    old = place(run, "a")
    mark(run, "skipped", "a")
    assert states(run)["a"] == "skipped"
    clear(run, "a")
    task = Task.objects.get(run=run, name="a")
    assert (task.state, task.restart, task.job_id) == ("queued", True, old.pk)
    end_job(old, "cancelled")
    step()
    assert job_of(run, "a") != old


def test_a_stopped_run_can_be_cleared_while_its_jobs_stop(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"))
    old = place(run, "a")
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    clear(run)
    step()
    run.refresh_from_db()
    assert (run.state, states(run)["b"]) == ("running", "waiting")
    assert not Job.objects.filter(origin=f"run:{run.pk}").exclude(pk=old.pk).exists()
    end_job(old, "cancelled")
    step()
    assert job_of(run, "a") != old
    assert finish(run) == "succeeded"


def mapped(world: World, **fields: Any) -> Run:
    over = bash("m", "list", map={"over": {"x": {"result": "list"}}})
    return start(world.vision, bash("list"), over, bash("after", "m"), **fields)


def items(*failed: str, count: int = 3) -> Any:
    return lambda task: ("failed" if str(task) in failed else "succeeded", list(range(count)))


def test_only_the_failed_instances_of_a_mapped_task_run_again(world: World) -> None:
    run = mapped(world)
    assert finish(run, items("m[1]")) == "failed"
    kept = {index: job_of(run, "m", index).pk for index in (0, 2)}
    plan = clear(run, only_failed=True)
    assert (plan.instances, plan.whole) == ({"m": (1,)}, ("after",))
    assert states(run) == {
        "list": "succeeded", "m": "queued", "m[0]": "succeeded", "m[1]": "waiting", "m[2]": "succeeded",
        "after": "waiting",
    }  # fmt: skip
    assert finish(run) == "succeeded"
    assert {index: job_of(run, "m", index).pk for index in (0, 2)} == kept
    assert states(run)["m"] == "succeeded"


def test_a_mapped_task_as_a_whole_is_expanded_anew(world: World) -> None:
    run = mapped(world)
    assert finish(run, items()) == "succeeded"
    clear(run, "list")
    assert states(run) == {"list": "waiting", "m": "waiting", "after": "waiting"}
    assert finish(run, items(count=2)) == "succeeded"
    assert Task.objects.get(run=run, name="m", index=-1).width == 2
    assert TaskTry.objects.filter(run=run, name="m", index__gte=0).count() == 3


def test_a_mapped_task_in_flight_waits_for_every_instance_to_stop(world: World) -> None:
    run = mapped(world, max_active_tasks=2)
    end(run, "list", result=[1, 2, 3])
    step()
    jobs = [place(run, "m", 0), place(run, "m", 1)]
    clear(run, "m")
    assert states(run) == {
        "list": "succeeded", "m": "running", "m[0]": "running", "m[1]": "running", "after": "waiting"
    }  # fmt: skip
    with pytest.raises(Conflict, match="mark m instead"):
        mark(run, "succeeded", "m[0]")
    end_job(jobs[0], "cancelled")
    step()
    assert states(run) == {"list": "succeeded", "m": "running", "m[1]": "running", "after": "waiting"}
    end_job(jobs[1], "cancelled")
    step()
    assert states(run)["m[0]"] == "queued"
    assert finish(run, items()) == "succeeded"


def test_a_mapped_task_whose_run_is_stopped_while_it_stops_can_be_cleared_again(world: World) -> None:
    run = mapped(world)
    end(run, "list", result=[1, 2])
    step()
    jobs = [place(run, "m", 0), place(run, "m", 1)]
    clear(run, "m")
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    end_job(jobs[0], "cancelled")
    step()
    clear(run, "m")
    step()
    assert "m[0]" not in states(run)
    end_job(jobs[1], "cancelled")
    step()
    assert finish(run, items()) == "succeeded"
    assert Task.objects.filter(run=run, name="m", index__gte=0, state="succeeded").count() == 2


def test_an_instance_beyond_the_new_list_fails_and_says_why(world: World) -> None:
    run = mapped(world)
    finish(run, items())
    clear(run, "list", downstream=False)
    finish(run, items(count=1))
    clear(run, "m[2]")
    assert finish(run) == "failed"
    assert "clear m as a whole" in Task.objects.get(run=run, name="m", index=2).detail


def test_the_newest_version_keeps_what_is_the_same_and_says_what_differs(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("gone", "a"))
    finish(run, failing("b"))
    tasks = [bash("a"), {**bash("b", "a"), "script": "echo mended"}, bash("more", "a")]
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(*tasks))
    plan = clear(run, only_failed=True, newest=True)
    assert (plan.added, plan.removed, plan.changed) == (("more",), ("gone",), ("b",))
    assert run.version.number == 2
    assert states(run) == {"a": "succeeded", "b": "waiting", "more": "waiting"}
    assert finish(run) == "succeeded"
    assert job_of(run, "b").spec["groups"][0]["script"] == "echo mended"
    tries = TaskTry.objects.filter(run=run).order_by("name").values_list("name", "state", "version__number")
    assert list(tries) == [("b", "failed", 1), ("gone", "succeeded", 1)]
    facts = Event.objects.get(verb="run.version_changed").facts
    assert facts == {"from": 1, "to": 2, "added": ["more"], "removed": ["gone"], "changed": ["b"]}


def test_the_tries_of_instances_say_on_which_version_they_were(world: World) -> None:
    run = mapped(world)
    finish(run, items("m[1]"))
    over = bash("m", "list", map={"over": {"x": {"result": "list"}}}, env={"A": "b"})
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("list"), over, bash("after", "m")))
    clear(run, only_failed=True, newest=True)
    tries = TaskTry.objects.filter(run=run, name="m").order_by("index").values_list("index", "version__number")
    assert list(tries) == [(-1, 1), (1, 1)]
    assert finish(run, items()) == "succeeded"


def test_a_task_that_became_mapped_runs_again(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("z"))
    finish(run, failing("z"))
    wide = bash("b", "a", map={"over": {"x": {"value": [1, 2]}}})
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), wide, bash("z")))
    assert clear(run, "z", newest=True).remapped == ("b",)
    assert finish(run) == "succeeded"
    assert states(run)["b[1]"] == "succeeded"


def test_parameters_that_the_newest_version_does_not_accept_are_refused(world: World) -> None:
    schema = {"properties": {"n": {"type": "integer", "default": 1}}}
    run = start(world.vision, bash("a"), params=schema)
    finish(run)
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), bash("b")))
    with pytest.raises(Invalid) as caught:
        clear(run, newest=True)
    assert caught.value.errors[0]["field"] == "params.n"
    run.refresh_from_db()
    assert (run.state, run.version.number, run.edits) == ("succeeded", 1, 0)


def test_what_cannot_be_cleared_is_refused(world: World) -> None:
    waiting = start(world.vision, bash("a"), bash("b", "a"), max_active_runs=1)
    with pytest.raises(Conflict, match="have not started"):
        clear(waiting, "b")
    with pytest.raises(Conflict, match="none of the tasks has failed"):
        clear(waiting, only_failed=True)
    with pytest.raises(Invalid, match="there is no task x"):
        clear(waiting, "x")
    with pytest.raises(Invalid, match=r"no instance a\[4\]"):
        clear(waiting, "a[4]")
    queued = commands.trigger(actor=SYSTEM, workflow_id=waiting.workflow_id)
    with pytest.raises(Conflict, match="has not started yet"):
        clear(queued)


@pytest.mark.parametrize(("persona", "error"), [("auditor", Forbidden), ("stranger", NotFound), ("nobody", NotFound)])
def test_only_members_clear_mark_and_note(world: World, persona: str, error: type[Exception]) -> None:
    run = start(world.vision, bash("a"))
    actor = world.actor(persona)
    with pytest.raises(error):
        commands.clear(actor=actor, run_id=run.pk, choice=Choice())
    with pytest.raises(error):
        commands.mark(actor=actor, run_id=run.pk, tasks=["a"], state="failed")
    with pytest.raises(error):
        commands.note_run(actor=actor, run_id=run.pk, note="x")


def test_a_cleared_run_waits_for_its_turn_and_a_pause_does_not_hold_it(world: World) -> None:
    run = start(world.vision, bash("a"), max_active_runs=1)
    finish(run)
    other = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id)
    step()
    Run.objects.filter(pk=run.pk).update(trigger="schedule")
    commands.pause(actor=SYSTEM, workflow_id=run.workflow_id)
    clear(run)
    step()
    run.refresh_from_db()
    assert run.state == "queued"
    finish(other)
    assert finish(run) == "succeeded"


@pytest.mark.parametrize("before", ["waiting", "queued", "running", "failed", "upstream_failed", "skipped"])
@pytest.mark.parametrize("to", ["succeeded", "failed", "skipped"])
def test_what_is_marked_counts_from_then_on(world: World, before: str, to: str) -> None:
    rules = {"failed": "all_done", "skipped": "all_failed"}
    task = bash("t", "u", trigger_rule=rules.get(before, "all_success"))
    run = start(world.vision, bash("u"), task, bash("after", "t"), bash("anyway", "t", trigger_rule="all_done"))
    if before != "waiting":
        end(run, "u", "failed" if before == "upstream_failed" else "succeeded")
        step()
    if before == "running":
        place(run, "t")
    if before == "failed":
        end(run, "t", "failed")
        step()
    assert states(run)["t"] == before
    if before == to:
        with pytest.raises(Conflict, match="already"):
            mark(run, to, "t")
        return
    mark(run, to, "t")
    if before == "waiting":
        assert states(run)["after"] == {"succeeded": "queued", "failed": "upstream_failed", "skipped": "skipped"}[to]
    final = finish(run)
    after = {"succeeded": "succeeded", "failed": "upstream_failed", "skipped": "skipped"}[to]
    assert {name: states(run)[name] for name in ("t", "after", "anyway")} == {
        "t": to, "after": after, "anyway": "succeeded"
    }  # fmt: skip
    assert final == ("failed" if to == "failed" else "succeeded")
    if before == "running":
        assert not Job.objects.filter(name="t", state="running").exists()


def test_a_success_is_never_marked_otherwise(world: World) -> None:
    run = start(world.vision, bash("a"))
    finish(run)
    with pytest.raises(Conflict, match="never marked otherwise"):
        mark(run, "failed", "a")
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_marking_ends_a_failed_run_well(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"))
    finish(run, failing("a"))
    mark(run, "succeeded", "a", "b")
    step()
    run.refresh_from_db()
    assert (run.state, states(run)) == ("succeeded", {"a": "succeeded", "b": "succeeded"})
    assert "Marked succeeded by system" in Task.objects.get(run=run, name="a").detail


def test_marking_the_failed_instance_ends_the_mapped_task(world: World) -> None:
    run = mapped(world)
    finish(run, items("m[1]"))
    mark(run, "skipped", "m[1]")
    assert finish(run) == "succeeded"
    assert states(run)["m"] == "succeeded"
    assert states(run)["m[1]"] == "skipped"


def test_marking_a_mapped_task_marks_what_of_it_has_not_succeeded(world: World) -> None:
    run = mapped(world)
    end(run, "list", result=[1, 2])
    step()
    end(run, "m", index=0)
    step()
    mark(run, "skipped", "m")
    assert states(run) == {
        "list": "succeeded", "m": "skipped", "m[0]": "succeeded", "m[1]": "skipped", "after": "skipped"
    }  # fmt: skip
    assert run.state == "succeeded"


def test_a_run_is_marked_before_it_starts(world: World) -> None:
    first = start(world.vision, bash("a"), bash("b", "a"), max_active_runs=1)
    run = commands.trigger(actor=SYSTEM, workflow_id=first.workflow_id)
    mark(run, "succeeded", "a")
    assert (run.state, states(run)) == ("queued", {"a": "succeeded", "b": "waiting"})
    finish(first)
    step()
    assert states(run) == {"a": "succeeded", "b": "queued"}


def test_a_note_says_who_and_when(world: World) -> None:
    run = start(world.vision, bash("a"))
    member = world.actor("member")
    commands.note_run(actor=member, run_id=run.pk, note="source was late")
    run.refresh_from_db()
    assert (run.note, run.note_by) == ("source was late", world.users["member"])
    assert run.note_at is not None
    commands.note_run(actor=member, run_id=run.pk, note="source was late")
    assert Event.objects.filter(verb="run.noted").count() == 1
    with pytest.raises(Invalid):
        commands.note_run(actor=member, run_id=run.pk, note="x" * 501)
