"""Branches, conditions, tasks that skip or give up, setups and teardowns, groups."""

from typing import Any

import pytest

from apps.jobs.models import Job
from apps.workflows.models import Run, Task
from tests.apps.workflows.driver import bash, empty, end, finish, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db


def branch(name: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    return bash(name, *upstream, decides="branch", **fields)


def exit_with(run: Run, name: str, status: int, index: int = -1) -> None:
    end(run, name, "failed", index=index)
    Job.objects.filter(task__run=run, task__name=name, task__index=index).update(exit_code=status)


def detail(run: Run, name: str) -> str:
    return Task.objects.get(run=run, name=name, index=-1).detail


def test_a_branch_follows_what_it_returned_and_keeps_the_join(world: World) -> None:
    join = empty("join", "pick", "b", "c", trigger_rule="none_failed_min_one_success")
    run = start(world.vision, branch("pick"), bash("b", "pick"), bash("c", "pick"), bash("after_c", "c"), join)
    end(run, "pick", result="b")
    step()
    assert states(run) == {
        "pick": "succeeded", "b": "queued", "c": "skipped", "after_c": "skipped", "join": "waiting"
    }  # fmt: skip
    assert detail(run, "c") == "pick did not choose it."
    assert finish(run) == "succeeded" and states(run)["join"] == "succeeded"


@pytest.mark.parametrize(("result", "queued"), [(["b", "c"], {"b", "c"}), (None, set()), ([], set())])
def test_a_branch_follows_several_or_none(world: World, result: Any, queued: set[str]) -> None:
    run = start(world.vision, branch("pick"), bash("b", "pick"), bash("c", "pick", trigger_rule="always"))
    first = {name for name, state in states(run).items() if state == "queued"} - {"pick"}
    end(run, "pick", result=result)
    step()
    # What has begun goes on: `always` did not wait for the branch.
    assert {name for name in "bc" if states(run)[name] == "queued"} == queued | first


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("bb", "returned bb, which does not exist. Did you mean b? It can go on with b, c."),
        ("far", "returned far, which is not directly behind it. It can go on with b, c."),
        (7, "returned the number 7: return the id"),
    ],
)
def test_a_branch_that_says_nothing_usable_fails_clearly(world: World, result: Any, said: str) -> None:
    run = start(world.vision, branch("pick"), bash("b", "pick"), bash("c", "pick"), bash("far", "b"))
    end(run, "pick", result=result)
    step()
    run.refresh_from_db()
    assert said in detail(run, "pick")
    assert (states(run)["pick"], states(run)["b"], run.state) == ("failed", "upstream_failed", "failed")


def test_a_branch_into_a_group_follows_its_first_tasks(world: World) -> None:
    groups = [{"id": "g", "upstream": ["pick"]}]
    tasks = [branch("pick"), bash("g.a"), bash("g.b", "g.a"), bash("g.c"), bash("other", "pick")]
    run = start(world.vision, *tasks, empty("end", "g", "other", trigger_rule="none_failed"), groups=groups)
    end(run, "pick", result="g")
    step()
    assert states(run) == {
        "pick": "succeeded", "g.a": "queued", "g.b": "waiting", "g.c": "queued", "other": "skipped", "end": "waiting"
    }  # fmt: skip
    assert finish(run) == "succeeded"


def test_a_condition_that_does_not_hold_skips_everything_behind(world: World) -> None:
    tasks = [bash("check", decides="short_circuit"), bash("a", "check"), bash("b", "a", trigger_rule="all_done")]
    run = start(world.vision, *tasks)
    end(run, "check", result=False)
    step()
    assert states(run) == {"check": "succeeded", "a": "skipped", "b": "skipped"}
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_a_condition_may_leave_the_rest_to_the_trigger_rules(world: World) -> None:
    check = bash("check", decides="short_circuit", ignore_downstream_trigger_rules=False)
    run = start(world.vision, check, bash("a", "check"), bash("b", "a", trigger_rule="all_done"))
    end(run, "check", result=0)
    step()
    assert states(run) == {"check": "succeeded", "a": "skipped", "b": "queued"}


def test_a_condition_that_holds_changes_nothing(world: World) -> None:
    run = start(world.vision, bash("check", decides="short_circuit"), bash("a", "check"))
    end(run, "check", result=[1])
    step()
    assert states(run)["a"] == "queued"


def test_a_task_left_out_while_it_waits_for_a_place_does_not_start(world: World) -> None:
    tasks = [branch("pick"), bash("other"), bash("x", "pick", trigger_rule="always"), bash("y", "pick")]
    run = start(world.vision, *tasks, max_active_tasks=1)
    assert states(run)["x"] == "waiting"
    end(run, "pick", result="y")
    step()
    assert states(run)["x"] == "skipped"
    assert finish(run) == "succeeded"


def test_a_task_may_skip_itself_and_give_up(world: World) -> None:
    run = start(world.vision, bash("a"), bash("b", "a"), bash("c"), bash("d", "c", trigger_rule="all_done"))
    exit_with(run, "a", 99)
    exit_with(run, "c", 98)
    step()
    assert states(run) == {"a": "skipped", "b": "skipped", "c": "failed", "d": "queued"}
    assert "exit status 99" in detail(run, "a") and "of no use" in detail(run, "c")


def test_retries_leave_out_the_statuses_that_are_final(world: World) -> None:
    run = start(world.vision, bash("a", retries={"limit": 2}), bash("b"))
    assert Job.objects.get(task__run=run, task__name="a").spec["retries"]["final"] == [97, 98, 99]
    assert "final" not in Job.objects.get(task__run=run, task__name="b").spec["retries"]


def test_a_mapped_task_of_which_some_skipped(world: World) -> None:
    over = {"over": {"x": {"value": [1, 2]}}}
    run = start(world.vision, bash("m", map=over), bash("n", map=over), bash("after", "m"), bash("behind", "n"))
    exit_with(run, "m", 99, 0)
    end(run, "m", index=1)
    exit_with(run, "n", 99, 0)
    exit_with(run, "n", 99, 1)
    step()
    found = states(run)
    assert (found["m"], found["m[0]"], found["after"]) == ("succeeded", "skipped", "queued")
    assert (found["n"], found["behind"]) == ("skipped", "skipped")


SETUP = [
    bash("make", setup=True),
    bash("work", "make"),
    bash("clean", "work", teardown={"setups": ["make"]}),
]


def test_a_teardown_runs_whatever_its_work_did_and_its_failure_does_not_count(world: World) -> None:
    run = start(world.vision, *SETUP)
    end(run, "make")
    step()
    end(run, "work", "failed")
    step()
    assert states(run) == {"make": "succeeded", "work": "failed", "clean": "queued"}
    assert finish(run) == "failed", "the work failed"
    run = start(world.vision, *SETUP, name="other")
    ends = {"clean": ("failed", None)}
    assert finish(run, lambda task: ends.get(task.name, ("succeeded", None))) == "succeeded"
    strict = [*SETUP[:2], bash("clean", "work", teardown={"setups": ["make"], "fails_run": True})]
    run = start(world.vision, *strict, name="strict")
    assert finish(run, lambda task: ends.get(task.name, ("succeeded", None))) == "failed"


def test_without_its_setup_neither_work_nor_teardown_run(world: World) -> None:
    run = start(world.vision, *SETUP, bash("last", "work", trigger_rule="all_done"))
    end(run, "make", "failed")
    step()
    assert states(run) == {
        "make": "failed", "work": "upstream_failed", "clean": "upstream_failed", "last": "queued"
    }  # fmt: skip
    run = start(world.vision, *SETUP, name="skipped")
    exit_with(run, "make", 99)
    step()
    assert set(states(run).values()) == {"skipped"}


def test_a_condition_never_leaves_a_teardown_out(world: World) -> None:
    tasks = [SETUP[0], bash("check", "make", decides="short_circuit"), bash("work", "check"), SETUP[2]]
    run = start(world.vision, *tasks)
    end(run, "make")
    step()
    end(run, "check", result=False)
    step()
    assert states(run) == {"make": "succeeded", "check": "succeeded", "work": "skipped", "clean": "queued"}
