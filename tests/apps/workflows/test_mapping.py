"""Mapped tasks whose instances come little by little: what is made when, and what people do with those to come."""

from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.jobs.models import Job
from apps.workflows import commands, queries, unmade
from apps.workflows.apply import apply
from apps.workflows.clearing import Choice, ClearPlan, plan_clear
from apps.workflows.models import Run, Task
from apps.workflows.observe import observe
from tests.apps.workflows.driver import bash, begin, end, end_job, finish, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def narrow(monkeypatch: Any) -> None:
    """Four instances that have not started."""
    monkeypatch.setattr(unmade, "WINDOW", 4)


def wide(count: int, *upstream: str, **fields: Any) -> dict[str, Any]:
    return bash("m", *upstream, map={"over": {"x": {"value": list(range(count))}}}, **fields)


def group(run: Run) -> Task:
    return Task.objects.get(run=run, name="m", index=-1)


def instances(run: Run) -> dict[int, str]:
    return dict(Task.objects.filter(run=run, name="m", index__gte=0).order_by("index").values_list("index", "state"))


def inputs(run: Run) -> list[dict[str, Any]]:
    jobs = Job.objects.filter(task__run=run, task__name="m").order_by("task__index")
    return [spec["inputs"] for spec in jobs.values_list("spec", flat=True)]


def test_instances_come_as_others_start(world: World) -> None:
    run = start(world.vision, wide(11), bash("after", arguments={"all": {"result": "m"}}))
    assert (group(run).width, list(instances(run))) == (11, [0, 1, 2, 3])
    begin(run, "m", 0)
    step()
    assert len(instances(run)) == 4  # Three have not started: more than half of four.
    begin(run, "m", 3)
    step()
    assert list(instances(run)) == [0, 1, 2, 3, 4, 5]
    assert Job.objects.filter(task__run=run).count() == 6
    end(run, "m", index=1)  # Too quick to be seen running.
    end(run, "m", index=2)
    step()
    assert len(instances(run)) == 8
    for index in (0, 3):
        end(run, "m", index=index)
    assert finish(run, lambda task: ("succeeded", task.index)) == "succeeded"
    assert inputs(run) == [{"x": index} for index in range(11)]
    after = Job.objects.get(task__run=run, task__name="after")
    assert after.spec["inputs"]["all"] == [None] * 4 + list(range(4, 11))


def test_a_failure_among_the_first_stops_none_and_counts_in_the_end(world: World) -> None:
    run = start(world.vision, wide(9), bash("after", "m"))
    end(run, "m", "failed", index=0)
    step()
    assert states(run)["after"] == "waiting"
    assert finish(run) == "failed"
    assert (len(instances(run)), group(run).failed, states(run)["after"]) == (9, 1, "upstream_failed")


def test_a_limit_of_active_tasks_holds_while_it_is_expanded(world: World) -> None:
    run = start(world.vision, wide(9), max_active_tasks=1)
    for _ in range(9):
        jobs = Job.objects.filter(task__run=run, task__state="queued")
        assert len(jobs) == 1 and len(instances(run)) <= 9
        end_job(jobs[0], "succeeded")
        step()
    run.refresh_from_db()
    assert (run.state, len(instances(run))) == ("succeeded", 9)


def test_products_zips_and_objects_reach_the_jobs(world: World) -> None:
    source = bash("a")
    over = {"b": {"value": ["x", "y"]}, "a": {"result": "a"}}
    run = start(world.vision, source, bash("m", map={"over": over}), name="product")
    end(run, "a", result=[1, 2, 3])
    step()
    finish(run)
    assert inputs(run) == [{"b": b, "a": a} for b in "xy" for a in (1, 2, 3)]
    run = start(world.vision, source, bash("m", map={"zip": over, "fill": None}), name="zip")
    end(run, "a", result=[1, 2, 3])
    step()
    assert inputs(run) == [{"b": "x", "a": 1}, {"b": "y", "a": 2}, {"b": None, "a": 3}]
    kwargs = {"kwargs": {"result": "a"}}
    run = start(world.vision, source, bash("m", arguments={"c": {"value": 1}}, map=kwargs), name="kwargs")
    end(run, "a", result=[{"x": 1}, {"y": 2}])
    step()
    assert inputs(run) == [{"c": 1, "x": 1}, {"c": 1, "y": 2}]


@pytest.mark.parametrize(
    ("mapping", "result", "said"),
    [
        ({"over": {"x": {"result": "a"}, "y": {"value": [0] * 500}}}, [1, 2, 3], "3 (x) × 500 (y) are 1,500 instances"),
        ({"zip": {"x": {"result": "a"}, "y": {"value": [1]}}}, [1, 2], "different lengths"),
        ({"kwargs": {"result": "a"}}, [{"x": 1}, 2], "item 1 of kwargs"),
        ({"kwargs": {"result": "a"}}, {"x": 1}, "only a list"),
        ({"over": {"x": {"result": "a", "key": "rows"}}}, {"row": []}, "has no 'rows'"),
    ],
)
def test_lists_that_make_no_instances_fail_the_task_and_end_the_run(
    world: World, mapping: Any, result: Any, said: str
) -> None:
    run = start(world.vision, bash("a"), bash("m", map=mapping))
    end(run, "a", result=result)
    step()
    run.refresh_from_db()
    assert (run.state, states(run)) == ("failed", {"a": "succeeded", "m": "failed"})
    assert said in group(run).detail


def test_an_empty_list_of_a_product_skips(world: World) -> None:
    run = start(world.vision, bash("m", map={"over": {"x": {"value": [1, 2]}, "y": {"value": []}}}))
    run.refresh_from_db()
    assert (run.state, states(run)) == ("succeeded", {"m": "skipped"})


def test_a_mapped_task_over_a_mapped_task_gets_its_results_in_order(world: World) -> None:
    run = start(world.vision, wide(6), bash("n", map={"over": {"y": {"result": "m"}}}))
    finish(run, lambda task: ("succeeded", task.index * 10))
    jobs = Job.objects.filter(task__run=run, task__name="n").order_by("task__index")
    assert [job.spec["inputs"] for job in jobs] == [{"y": index * 10} for index in range(6)]


def test_what_keeps_each_instance_from_running_fails_them_all_little_by_little(world: World) -> None:
    over = {"x": {"value": ["x" * 700_000] * 9}}
    run = start(world.vision, bash("m", map={"over": over}, arguments={"y": {"value": "y" * 700_000}}))
    assert list(instances(run).values()) == ["failed"] * 4
    step(review=True)
    assert len(instances(run)) == 8
    step(review=True)
    run.refresh_from_db()
    assert (run.state, group(run).failed) == ("failed", 9)


def test_questions_wait_without_holding_back_others(world: World) -> None:
    ask = {"id": "m", "kind": "approval", "approval": {"subject": "Go?"}, "map": {"over": {"x": {"value": [0] * 9}}}}
    run = start(world.vision, ask)
    assert (states(run)["m"], len(instances(run))) == ("deferred", 4)
    # Nobody tells of it, as after a crash: the search finds it.
    assert unmade.unfinished() == [run.pk]
    apply(observe(search=False, review=True), timezone.now())
    apply(observe(search=False, review=True), timezone.now())
    assert list(instances(run).values()) == ["deferred"] * 9
    assert unmade.unfinished() == []


def test_a_crash_loses_none_and_makes_none_twice(world: World, monkeypatch: Any) -> None:
    run = start(world.vision, wide(9))
    for index in range(3):
        end(run, "m", index=index)
    observed = observe(search=True, review=False)

    def dies(*_: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as broken:
        broken.setattr("apps.workflows.apply._Batch._write_runs", dies)
        assert apply(observed, timezone.now()).failed == 1
    assert len(instances(run)) == 4
    assert finish(run) == "succeeded"
    assert (len(instances(run)), Job.objects.filter(task__run=run).count()) == (9, 9)


def test_counts_and_graph_know_those_to_come(world: World) -> None:
    run = start(world.vision, wide(9), bash("after", "m"))
    end(run, "m", index=0)
    step()
    assert queries.count_states([run.pk])[run.pk] == {"queued": 3, "succeeded": 1, "waiting": 6}
    detail = queries.run_detail(SYSTEM, run.pk)
    assert (detail.done, detail.total) == (1, 10)
    [node] = [node for node in queries.run_graph(run)["nodes"] if node["id"] == "m"]
    assert (node["width"], node["counts"]) == (9, {"queued": 3, "succeeded": 1, "waiting": 5})
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    assert queries.count_states([run.pk])[run.pk] == {"cancelled": 9, "succeeded": 1}


def cancelled(world: World) -> Run:
    """A run cancelled when one of nine has succeeded and four have been made."""
    run = start(world.vision, wide(9), bash("after", "m"))
    end(run, "m", index=0)
    step()
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    Job.objects.filter(task__run=run, ended_at=None).update(state="cancelled", ended_at=timezone.now(), reason="")
    assert len(instances(run)) == 4
    return run


def clear(run: Run, *tasks: str, **fields: Any) -> ClearPlan:
    choice = Choice(tasks, **fields)
    preview = plan_clear(Run.objects.get(pk=run.pk), choice)
    plan = commands.clear(actor=SYSTEM, run_id=run.pk, choice=choice)
    assert [(str(row), row.state) for row in preview.rows] == [(str(row), row.state) for row in plan.rows]
    step()
    return plan


def test_what_a_cancelled_run_did_not_get_to_comes_when_the_failed_run_again(world: World) -> None:
    run = cancelled(world)
    kept = Job.objects.get(task__run=run, task__index=0).pk
    plan = clear(run, only_failed=True)
    assert (plan.instances, plan.to_come) == ({"m": (1, 2, 3)}, {"m": 5})
    assert finish(run) == "succeeded"
    assert instances(run) == dict.fromkeys(range(9), "succeeded")
    assert Job.objects.get(task__run=run, task__index=0).pk == kept


def test_of_a_task_all_of_whose_instances_succeeded_so_far_only_the_others_come(world: World) -> None:
    run = start(world.vision, wide(9))
    for index in range(4):
        end(run, "m", index=index)
    with pytest.MonkeyPatch.context() as none:
        none.setattr(unmade, "WINDOW", 100)
        step()
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    assert instances(run) == dict.fromkeys(range(4), "succeeded")
    clear(run, only_failed=True)
    assert finish(run) == "succeeded"
    assert instances(run) == dict.fromkeys(range(9), "succeeded")
    assert Job.objects.filter(origin=f"run:{run.pk}").count() == 9


def test_clearing_one_instance_leaves_the_others_as_they_ended(world: World) -> None:
    run = cancelled(world)
    assert clear(run, "m[2]").to_come == {}
    assert finish(run) == "failed"
    assert instances(run) == {0: "succeeded", 1: "cancelled", 2: "succeeded", **dict.fromkeys(range(3, 9), "cancelled")}


def test_clearing_an_instance_that_was_never_made_runs_it_alone(world: World) -> None:
    run = cancelled(world)
    clear(run, "m[7]")
    assert finish(run) == "failed"
    assert [index for index, state in instances(run).items() if state == "succeeded"] == [0, 7]


def test_clearing_all_of_it_expands_anew(world: World) -> None:
    run = cancelled(world)
    clear(run, "m")
    assert list(instances(run)) == [0, 1, 2, 3]
    assert finish(run) == "succeeded"
    assert len(instances(run)) == 9


def test_clearing_all_of_it_in_flight_makes_no_more_of_the_former(world: World) -> None:
    run = start(world.vision, wide(9))
    for index in range(4):
        begin(run, "m", index)
    former = list(Job.objects.filter(task__run=run))
    with pytest.MonkeyPatch.context() as none:
        none.setattr(unmade, "WINDOW", 100)
        step()
    Job.objects.filter(pk__in=[job.pk for job in former]).update(state="running")
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("m",)))
    step(review=True)
    assert len(instances(run)) == 4
    for job in former:
        end_job(job, "cancelled")
    step()
    assert finish(run) == "succeeded"
    assert (len(instances(run)), Job.objects.filter(task__run=run).count()) == (9, 9)


def test_marking_the_task_ends_it_with_those_to_come(world: World) -> None:
    run = start(world.vision, wide(9), bash("after", "m"))
    end(run, "m", index=0)
    step()
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["m"], state="succeeded")
    assert states(run)["after"] == "queued"
    assert queries.count_states([run.pk])[run.pk] == {"succeeded": 9, "queued": 1}
    assert finish(run) == "succeeded"
    assert len(instances(run)) == 4
    clear(run, "m[1]", downstream=False)
    assert finish(run) == "succeeded"
    assert instances(run) == dict.fromkeys(range(9), "succeeded")
    assert Job.objects.filter(task__run=run, task__name="m").count() == 2


def test_marking_an_instance_of_a_cancelled_task_leaves_the_others(world: World) -> None:
    run = cancelled(world)
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["m[1]"], state="succeeded")
    assert finish(run) == "failed"
    assert instances(run)[1] == "succeeded" and len(instances(run)) == 9


def test_an_instance_to_come_can_be_neither_cleared_nor_marked(world: World) -> None:
    run = start(world.vision, wide(9))
    for act in (
        lambda: commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["m[8]"], state="failed"),
        lambda: commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("m[8]",))),
    ):
        with pytest.raises(Invalid, match="no instance m\\[8\\] yet"):
            act()
    with pytest.raises(Conflict):
        commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(only_failed=True))


def test_many_cleared_instances_start_little_by_little(world: World) -> None:
    run = start(world.vision, wide(9), bash("after", "m"))
    assert finish(run, lambda task: ("failed" if task.index != 4 else "succeeded", None)) == "failed"
    clear(run, only_failed=True)
    assert list(instances(run).values()).count("queued") == 4
    begin(run, "m", 0)
    step()
    assert list(instances(run).values()).count("waiting") == 4
    end(run, "m", index=0)
    end(run, "m", index=1)
    step()
    assert list(instances(run).values()).count("waiting") == 2
    assert finish(run) == "succeeded"
    assert Job.objects.filter(origin=f"run:{run.pk}", name="etl.m[4]").count() == 1


def test_cleared_instances_that_fail_at_once_do_not_keep_the_run_waiting(world: World) -> None:
    source = bash("a")
    run = start(world.vision, source, bash("m", map={"over": {"x": {"result": "a"}}}))
    end(run, "a", result=list(range(9)))
    step()
    assert finish(run, lambda task: ("failed", [1])) == "failed"
    clear(run, "a", downstream=False)
    assert finish(run, lambda task: ("succeeded", [1])) == "failed"
    clear(run, only_failed=True)
    for _ in range(3):
        step(review=True)
    run.refresh_from_db()
    assert (run.state, list(instances(run).values())) == ("failed", ["failed"] * 9)
    assert "clear m as a whole" in Task.objects.get(run=run, name="m", index=8).detail


def test_instances_are_called_by_their_own_arguments(world: World) -> None:
    """Also those of tasks without a job; a look-up that finds nothing is said, and fails nothing."""
    rows = [{"city": "Bern"}, {}, {"city": "x" * 300}]
    mapping = {"over": {"row": {"value": rows}}, "label": "{{ row.city }}"}
    numbered = {**mapping, "label": "{{ map_index }}"}
    asks = {"id": "ask", "kind": "approval", "approval": {"subject": "?"}, "map": numbered}
    run = start(world.vision, bash("a", map=mapping), bash("plain", map={"over": mapping["over"]}), asks)
    found = {str(task): task.label for task in Task.objects.filter(run=run)}
    assert found["a[0]"] == "Bern" and found["a[1]"] == "(no name: there is no row.city)"
    assert found["a[2]"] == "x" * 200 and found["a"] is None and found["plain[0]"] is None
    assert found["ask[2]"] == "2"
    for index in range(3):
        end(run, "a", index=index)
    step()
    assert states(run)["a"] == "succeeded"


def test_an_instance_that_waited_for_a_place_gets_its_name_when_it_begins(world: World) -> None:
    mapping = {"over": {"x": {"value": ["a", "b"]}}, "label": "{{ x }}"}
    run = start(world.vision, bash("t", map=mapping), max_active_tasks=1)
    end(run, "t", index=0)
    step()
    labels = Task.objects.filter(run=run, index__gte=0).order_by("index").values_list("label", flat=True)
    assert list(labels) == ["a", "b"]
