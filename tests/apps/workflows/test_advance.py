"""Runs move on as their jobs end: chains, fans, mapped tasks, trigger rules, failures, arguments."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.models import Run, Task
from tests.apps.workflows.driver import (
    bash,
    begin,
    definition,
    empty,
    end,
    end_job,
    finish,
    start,
    states,
    step,
)
from tests.personas import World

pytestmark = pytest.mark.django_db


def inputs(run: Run, name: str, index: int = -1) -> Any:
    return Job.objects.get(task__run=run, task__name=name, task__index=index).spec["inputs"]


def mapped(name: str, over: Any, *upstream: str, **fields: Any) -> dict[str, Any]:
    limit = {"limit": fields.pop("limit")} if "limit" in fields else {}
    return bash(name, *upstream, map={"over": {"item": over}, **limit}, **fields)


def test_a_chain_runs_one_after_the_other(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("c", "b"))
    assert states(run) == {"a": "queued", "b": "waiting", "c": "waiting"}
    begin(run, "a")
    step()
    assert states(run)["a"] == "running"
    end(run, "a")
    step()
    assert states(run) == {"a": "succeeded", "b": "queued", "c": "waiting"}
    assert finish(run) == "succeeded"
    tasks = Task.objects.filter(run=run).select_related("job")
    assert all(task.queued_at and task.started_at and task.ended_at and task.job for task in tasks)
    verbs = Event.objects.filter(subject_type="run", subject_id=run.pk).order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["run.created", "run.started", "run.succeeded"]
    first = Task.objects.get(run=run, name="a").pk
    verbs = Event.objects.filter(subject_type="task", subject_id=first).order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["task.queued", "task.started", "task.succeeded"]


def test_the_job_of_a_task_is_the_runs_own(world: World) -> None:
    run = start(world.vision, bash("a"), timezone="Europe/Berlin")
    job = Job.objects.get(task__run=run)
    env = job.spec["groups"][0]["env"]
    assert (job.name, job.origin, job.pool, job.tenant_id) == (
        "etl.a",
        f"run:{run.pk}",
        "default",
        world.vision.pk,
    )
    assert env["RM_RUN_ID"] == str(run.pk)
    assert env["RM_TASK_ID"] == "a"
    assert env["RM_LOGICAL_TIME"][-6:] in ("+01:00", "+02:00")


def test_a_fully_connected_fan_takes_few_statements(world: World, django_assert_max_num_queries: Any) -> None:
    layers = [
        bash(f"t{layer}-{place}", *(f"t{layer - 1}-{other}" for other in range(10) if layer))
        for layer in range(4)
        for place in range(10)
    ]
    run = start(world.vision, *layers)
    for place in range(10):
        end(run, f"t0-{place}")
    with django_assert_max_num_queries(10):
        step()
    assert [states(run)[f"t1-{place}"] for place in range(10)] == ["queued"] * 10
    for place in range(9):
        end(run, f"t1-{place}")
        step()
    assert states(run)["t2-0"] == "waiting"
    assert finish(run) == "succeeded"


def test_a_hop_of_a_chain_takes_eight_statements(world: World, django_assert_num_queries: Any) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("c", "b"))
    end(run, "a")
    with django_assert_num_queries(8 + 2):  # Eight, and the transaction's savepoint in a test.
        step()
    assert states(run)["b"] == "queued"


def test_the_cost_of_a_pass_does_not_follow_the_number_of_runs(
    world: World, django_assert_max_num_queries: Any
) -> None:
    runs = [start(world.vision, bash("a"), bash("b", "a"), name=f"w{number}") for number in range(5)]
    for run in runs:
        end(run, "a")
    with django_assert_max_num_queries(10):
        step()
    assert all(states(run)["b"] == "queued" for run in runs)


def test_empty_tasks_end_at_once_and_pass_it_on(world: World) -> None:
    run = start(world.vision, empty("a"), empty("b", "a"), bash("c", "b"), empty("d", "c"), empty("e", "d"))
    assert states(run) == {"a": "succeeded", "b": "succeeded", "c": "queued", "d": "waiting", "e": "waiting"}
    end(run, "c")
    assert step().ended == 1
    run.refresh_from_db()
    assert run.state == "succeeded" and set(states(run).values()) == {"succeeded"}


def test_a_run_of_empty_tasks_ends_in_its_first_pass(world: World) -> None:
    run = start(world.vision, empty("a"), empty("b", "a"))
    run.refresh_from_db()
    assert run.state == "succeeded"
    assert run.started_at and run.ended_at


def test_a_failure_stops_what_depends_on_it_and_fails_the_run(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("c", "b"), bash("other"))
    end(run, "a", "failed")
    step()
    assert states(run) == {"a": "failed", "b": "upstream_failed", "c": "upstream_failed", "other": "queued"}
    assert Task.objects.get(run=run, name="a").detail == "Its job exited with status 1."
    assert finish(run) == "failed"


def test_a_cancelled_job_cancels_its_task_and_counts_as_a_failure(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("clean", "a", trigger_rule="all_done"))
    end(run, "a", "cancelled")
    step()
    assert states(run) == {"a": "cancelled", "b": "upstream_failed", "clean": "queued"}


def test_skips_go_further_than_the_next_task(world: World) -> None:
    run = start(
        world.vision,
        bash("a"),
        bash("alarm", "a", trigger_rule="one_failed"),
        bash("report", "alarm"),
        empty("end", "report", trigger_rule="all_done"),
        bash("after", "end"),
    )
    end(run, "a")
    step()
    assert states(run) == {
        "a": "succeeded", "alarm": "skipped", "report": "skipped", "end": "succeeded", "after": "queued"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "ends", "expected"),
    [
        ("all_success", "ss", "queued"),
        ("all_success", "sf", "upstream_failed"),
        ("all_failed", "ff", "queued"),
        ("all_failed", "sf", "skipped"),
        ("all_done", "sf", "queued"),
        ("one_success", "fs", "queued"),
        ("one_success", "ff", "upstream_failed"),
        ("one_failed", "sf", "queued"),
        ("one_failed", "ss", "skipped"),
        ("one_done", "f", "queued"),
        ("none_failed", "ss", "queued"),
        ("none_failed_min_one_success", "sf", "upstream_failed"),
        ("none_skipped", "sf", "queued"),
        ("all_skipped", "sf", "skipped"),
        ("always", "", "queued"),
    ],
)
def test_trigger_rules(world: World, rule: str, ends: str, expected: str) -> None:
    run = start(world.vision, bash("a"), bash("b"), bash("x", "a", "b", trigger_rule=rule))
    for name, letter in zip("ab", ends, strict=False):
        end(run, name, {"s": "succeeded", "f": "failed"}[letter])
        step()
    assert states(run)["x"] == expected


def test_an_early_rule_is_not_decided_twice(world: World) -> None:
    rule = {"trigger_rule": "one_success"}
    run = start(world.vision, bash("a"), bash("b"), mapped("x", {"value": [1, 2]}, "a", "b", **rule))
    end(run, "a")
    step()
    assert states(run)["x[1]"] == "queued"
    end(run, "x", index=0)
    end(run, "b")  # The counters of the expanded task are its instances' now.
    step()
    assert states(run)["x"] != "succeeded"
    end(run, "x", index=1)
    step()
    run.refresh_from_db()
    assert (states(run)["x"], run.state) == ("succeeded", "succeeded")
    assert Job.objects.filter(task__run=run).count() == 4


def test_arguments_take_results_parameters_and_values(world: World) -> None:
    arguments = {
        "rows": {"result": "a", "key": "rows"},
        "limit": {"param": "models"},
        "path": {"value": "x.csv"},
    }
    schema = {"properties": {"models": {"type": "integer", "default": 5}}}
    tasks = [bash("a"), bash("b", arguments=arguments)]
    run = start(world.vision, *tasks, given={"models": 7}, params=schema)
    end(run, "a", result={"rows": [1, 2]})
    step()
    assert inputs(run, "b") == {"rows": [1, 2], "limit": 7, "path": "x.csv"}


def test_a_missing_key_fails_the_task_and_is_named(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", arguments={"x": {"result": "a", "key": "rows"}}), bash("c", "b"))
    end(run, "a", result={"lines": 3})
    step()
    task = Task.objects.get(run=run, name="b")
    assert task.state == "failed" and task.job is None
    assert "result of a has no 'rows'" in task.detail and "lines" in task.detail
    run.refresh_from_db()
    assert (states(run)["c"], run.state) == ("upstream_failed", "failed")


def test_arguments_of_absurd_size_fail_the_task(world: World) -> None:
    sources = [mapped("a", {"value": list(range(6))}), bash("b", arguments={"x": {"result": "a"}})]
    run = start(world.vision, *sources)
    finish_all = [Job.objects.get(task__run=run, task__name="a", task__index=index) for index in range(6)]
    for job in finish_all:
        end_job(job, "succeeded", "x" * 250_000)
    step()
    task = Task.objects.get(run=run, name="b")
    assert task.state == "failed" and "larger than 1 MiB" in task.detail


def test_a_mapped_task_has_an_instance_for_each_item(world: World) -> None:
    run = start(
        world.vision,
        bash("a"),
        mapped("m", {"result": "a", "key": "models"}, arguments={"scale": {"value": 2}}),
        bash("join", arguments={"all": {"result": "m"}}),
    )
    end(run, "a", result={"models": ["x", "y", "z"]})
    step()
    assert Task.objects.get(run=run, name="m", index=-1).width == 3
    assert states(run)["m"] == "queued"
    assert inputs(run, "m", 1) == {"item": "y", "scale": 2}
    job = Job.objects.get(task__run=run, task__name="m", task__index=2)
    assert (job.name, job.spec["groups"][0]["env"]["RM_MAP_INDEX"]) == ("etl.m[2]", "2")
    begin(run, "m", 0)
    step()
    assert states(run)["m"] == "running"
    for index, result in ((2, "c"), (0, "a"), (1, "b")):
        assert states(run)["join"] == "waiting"
        end(run, "m", result=result, index=index)
        step()
    assert states(run)["m"] == "succeeded"
    assert inputs(run, "join") == {"all": ["a", "b", "c"]}


def test_a_failed_instance_fails_the_mapped_task_and_leaves_a_gap(world: World) -> None:
    run = start(
        world.vision,
        mapped("m", {"value": [1, 2]}),
        bash("strict", "m"),
        bash("lenient", "m", trigger_rule="all_done", arguments={"all": {"result": "m"}}),
    )
    end(run, "m", result=10, index=1)
    end(run, "m", "failed", index=0)
    step()
    assert states(run) == {
        "m": "failed", "m[0]": "failed", "m[1]": "succeeded", "strict": "upstream_failed", "lenient": "queued"
    }  # fmt: skip
    assert inputs(run, "lenient") == {"all": [None, 10]}
    assert "1 of 2 instances" in Task.objects.get(run=run, name="m", index=-1).detail


def test_mapping_over_nothing_skips(world: World) -> None:
    run = start(world.vision, bash("a"), mapped("m", {"result": "a"}), bash("b", "m"))
    end(run, "a", result=[])
    step()
    run.refresh_from_db()
    assert states(run) == {"a": "succeeded", "m": "skipped", "b": "skipped"}
    assert run.state == "succeeded"


@pytest.mark.parametrize(
    ("result", "said"),
    [({"a": 1}, "only a list"), (None, "only a list"), ([1, 2, 3], "its limit is 2")],
)
def test_what_cannot_be_mapped_over_fails_with_the_reason(world: World, result: Any, said: str) -> None:
    run = start(world.vision, bash("a"), mapped("m", {"result": "a"}, limit=2), bash("b", "m"))
    end(run, "a", result=result)
    step()
    assert said in Task.objects.get(run=run, name="m").detail
    assert states(run) == {"a": "succeeded", "m": "failed", "b": "upstream_failed"}


def test_max_active_tasks_holds_back_and_lets_follow(world: World) -> None:
    run = start(world.vision, *(bash(f"t{number}") for number in range(5)), max_active_tasks=2)
    assert sorted(states(run).values()) == ["queued", "queued", "waiting", "waiting", "waiting"]
    end(run, "t0")
    step()
    assert states(run)["t2"] == "queued" and states(run)["t3"] == "waiting"
    assert _most_in_flight(run) <= 2
    assert Job.objects.filter(task__run=run).count() == 5


def test_max_active_tasks_holds_for_instances(world: World) -> None:
    run = start(world.vision, mapped("m", {"value": [1, 2, 3, 4, 5]}), bash("z", "m"), max_active_tasks=2)
    assert sorted(states(run).values()).count("queued") == 3  # Two instances and the task as a whole.
    assert _most_in_flight(run) <= 2
    assert [Task.objects.get(run=run, name="m", index=index).job.spec["inputs"] for index in (0, 4)] == [
        {"item": 1}, {"item": 5}
    ]  # fmt: skip


def _most_in_flight(run: Run) -> int:
    most = 0
    for _ in range(30):
        run.refresh_from_db()
        if run.ended_at:
            assert run.state == "succeeded"
            return most
        jobs = list(Job.objects.filter(task__run=run, task__state="queued"))
        most = max(most, len(jobs))
        end_job(jobs[0], "succeeded")
        step()
    raise AssertionError("the run did not end")


def test_max_active_runs_starts_in_the_order_of_logical_time(world: World) -> None:
    from tests.personas import soon

    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), max_active_runs=1))
    later, sooner = (
        commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk, logical_time=soon(seconds))
        for seconds in (-10, -20)
    )
    step()
    later.refresh_from_db(), sooner.refresh_from_db()
    assert (sooner.state, later.state) == ("running", "queued")
    end(sooner, "a")
    step()
    step()
    later.refresh_from_db(), sooner.refresh_from_db()
    assert (sooner.state, later.state) == ("succeeded", "running")


def test_a_deleted_job_fails_its_task(world: World) -> None:
    run = start(world.vision, bash("a"))
    Job.objects.filter(task__run=run).delete()
    step()
    run.refresh_from_db()
    assert run.state == "failed"
    assert "deleted" in Task.objects.get(run=run).detail


def test_a_run_at_rest_is_mended_from_its_rows(world: World) -> None:
    run = start(world.vision, bash("a"), mapped("m", {"value": [1]}, "a"), bash("b", "m"))
    end(run, "a")
    step()
    end(run, "m", index=0)
    # As if a pass had stored the end of the instance and nothing else.
    Task.objects.filter(run=run, name="m", index=0).update(state="succeeded")
    assert step().jobs == 0
    assert states(run)["b"] == "waiting"
    step(review=True)
    assert states(run) == {"a": "succeeded", "m": "succeeded", "m[0]": "succeeded", "b": "queued"}
    Job.objects.filter(task__run=run, task__name="b").update(state="succeeded", reason="", ended_at=run.created_at)
    Task.objects.filter(run=run, name="b").update(state="succeeded")
    step(review=True)
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_one_broken_run_does_not_hold_up_the_others(world: World, caplog: Any, monkeypatch: Any) -> None:
    from apps.workflows import progress

    good = start(world.vision, bash("a"), bash("b", "a"), name="good")
    bad = start(world.vision, bash("a"), bash("b", "a"), name="bad")
    original = progress.Progress.take

    def take(self: Any, *news: Any) -> None:
        original(self, *news)
        if self.run.pk == bad.pk:
            raise RuntimeError("broken")

    monkeypatch.setattr(progress.Progress, "take", take)
    for run in (good, bad):
        end(run, "a")
    applied = step()
    assert (applied.jobs, applied.failed) == (1, 1)
    assert states(good) == {"a": "succeeded", "b": "queued"}
    assert states(bad) == {"a": "queued", "b": "waiting"}
    monkeypatch.undo()
    step()
    assert states(bad) == {"a": "succeeded", "b": "queued"}


def test_a_version_that_is_no_longer_accepted_fails_its_runs(world: World) -> None:
    from apps.workflows.plans import plans

    run = start(world.vision, bash("a"), bash("b", "a"))
    run.version.definition["tasks"][1]["kind"] = "fortran"
    run.version.save()
    plans.clear()
    end(run, "a")
    step()
    run.refresh_from_db()
    assert (run.state, states(run)) == ("failed", {"a": "succeeded", "b": "failed"})
    assert "no longer accepted" in Task.objects.get(run=run, name="b").detail


def test_without_a_default_pool_jobs_wait_with_a_reason(world: World, monkeypatch: Any) -> None:
    from apps.fleet.models import Pool
    from apps.workflows import apply

    monkeypatch.setattr(apply, "_known_pool", (float("-inf"), ""))
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a")))
    Pool.objects.filter(name="default").update(name="one")
    Pool.objects.create(name="two")
    run = commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk)
    step()
    assert Job.objects.get(task__run=run).pool == "default"
    monkeypatch.setattr(apply, "_known_pool", (float("-inf"), ""))


def test_plans_are_kept_up_to_a_number_of_tasks(world: World, monkeypatch: Any, django_assert_num_queries: Any) -> None:
    from apps.workflows import plans

    monkeypatch.setattr(plans, "TASKS_KEPT", 5)
    versions = [
        commands.push(
            actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), bash("b"), name=f"w{number}")
        ).version.pk
        for number in range(3)
    ]
    plans.plans.clear()
    with django_assert_num_queries(3):
        for version in (versions[0], versions[1], versions[0], versions[2], versions[0]):
            plans.plan_of(version)
    with django_assert_num_queries(1):  # It was the one that nobody had used for longest.
        plans.plan_of(versions[1])
    plans.plans.clear()


@pytest.mark.django_db(transaction=True)
def test_the_loop_has_its_jobs_placed_in_the_same_turn(world: World, redis_empty: None) -> None:
    import apps.workflows.tasks  # noqa: F401 - registers the loop
    from apps.core import loops, redis

    world.node()
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), bash("b", "a")))
    run = commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk)
    redis.client().flushdb()
    assert loops.run("advance")
    assert Job.objects.get(task__run=run).state == "granted"
    # Nobody else was sent for the scheduler, and its flag is down again.
    assert not redis.client().exists(loops.FLAG.format("schedule"))
    assert not redis.client().llen("celery")


def test_an_end_of_a_job_wakes_the_loop(world: World, monkeypatch: Any) -> None:
    from apps.core import loops
    from apps.jobs import commands as jobs

    run = start(world.vision, bash("a"))
    woken: list[str] = []
    monkeypatch.setattr(loops, "wake", woken.append)
    jobs.cancel(actor=SYSTEM, job_id=Job.objects.get(task__run=run).pk)
    assert "advance" in woken
