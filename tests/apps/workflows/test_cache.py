"""The result cache: what is found again, what is not, and what people can do about it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.jobs.models import Job
from apps.tenants.stored import set_variable
from apps.workflows import cache_queries, caching, commands
from apps.workflows.clearing import Choice
from apps.workflows.models import CacheUse, DatasetEvent, Run, Task
from tests.apps.workflows.driver import bash, definition, empty, end, finish, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db


def again(run: Run, **options: Any) -> Run:
    """Another run of the same workflow, started."""
    made = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id, **options)
    step()
    return made


def outcomes(run: Run) -> dict[str, str]:
    return {f"{use.name}[{use.index}]" if use.index >= 0 else use.name: use.outcome for use in run.cache_uses.all()}


def done(run: Run) -> str:
    run.refresh_from_db()
    return run.state


def test_a_second_run_takes_the_result_and_makes_no_job(world: World) -> None:
    reads = bash("use", arguments={"rows": {"result": "load"}}, cache="1h")
    tasks = (bash("load", cache="1h", outlets=["s3://lake/rows"]), reads, empty("end", "use"))
    first = start(world.vision, *tasks)
    assert finish(first, lambda task: ("succeeded", {"n": 7} if task.name == "load" else [1])) == "succeeded"
    assert outcomes(first) == {"load": "miss", "use": "miss"}
    jobs = Job.objects.count()
    second = again(first)
    # Both steps, the second of which reads what the first one found, within one pass.
    assert done(second) == "succeeded" and Job.objects.count() == jobs
    assert outcomes(second) == {"load": "hit", "use": "hit"}
    load = Task.objects.get(run=second, name="load")
    assert load.result == {"n": 7} and load.job is None and load.detail.startswith(f"From the cache: run {first.pk}'s")
    source = second.cache_uses.get(name="load").source
    assert source == first.cache_uses.get(name="load") and source.job.result == {"n": 7}
    cached = Event.objects.filter(verb="task.cached", subject_id=load.pk)
    assert cached.count() == 1 and not Event.objects.filter(verb="task.succeeded", subject_id=load.pk).exists()
    # The dataset is updated as by any success.
    assert [event.extra for event in DatasetEvent.objects.order_by("pk")] == [{"n": 7}, {"n": 7}]


def test_failures_are_never_kept(world: World) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    assert finish(first, lambda task: ("failed", None)) == "failed"
    assert states(again(first)) == {"a": "queued"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"script": "false"}, "script"),
        ({"env": {"A": "2"}}, "env A"),
        ({"arguments": {"p": {"value": 2}}}, "argument p"),
        ({"cache": {"ttl": "1h", "version": "2"}}, "version"),
        ({"image": "python:3.12"}, "image"),
        ({"resources": {"cpu": 2}}, ""),
        ({"arguments": {"p": {"value": 1}, "q": {"value": 5}}, "cache": {"ttl": "1h", "ignore": ["q"]}}, ""),
        ({"retries": {"limit": 3}, "cache": "2h"}, ""),
    ],
)
def test_what_belongs_to_the_key(world: World, change: dict[str, Any], part: str) -> None:
    plain: dict[str, Any] = {"env": {"A": "1"}, "arguments": {"p": {"value": 1}}, "cache": "1h"}
    first = start(world.vision, bash("a", **plain))
    finish(first)
    pushed = commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", **{**plain, **change}))
    )
    assert pushed.created
    second = again(first)
    assert outcomes(second) == {"a": "miss" if part else "hit"}
    said = cache_queries.explained(second.cache_uses.get())
    assert said == f"Changed since run {first.pk}: {part}." if part else said.startswith("It took the result of run")


def test_templates_variables_and_parameters_belong_to_the_key_where_they_are_read(world: World) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}
    set_variable(actor=SYSTEM, tenant=world.vision, name="where", value="here")
    read = bash("read", script="echo {{ params.n }} {{ var.value.where }}", cache="1h")
    day = bash("day", script="echo {{ ds }}", cache="1h")
    first = start(world.vision, read, day, bash("blind", cache="1h"), params=schema)
    finish(first)
    tomorrow = timezone.now() + timedelta(days=1)
    found = {
        "plain": outcomes(again(first)),
        "param": outcomes(again(first, params={"n": 2})),
        "day": outcomes(again(first, logical_time=tomorrow)),
    }
    set_variable(actor=SYSTEM, tenant=world.vision, name="where", value="there")
    found["variable"] = outcomes(again(first))
    assert {name: {task for task, outcome in some.items() if outcome == "miss"} for name, some in found.items()} == {
        # The logical time is now, another one in each run.
        "plain": {"day"}, "param": {"read", "day"}, "day": {"day"}, "variable": {"read", "day"},
    }  # fmt: skip


def test_instances_of_a_mapped_task_come_each_by_their_own(world: World) -> None:
    schema = {"type": "object", "properties": {"items": {"type": "array", "default": [1, 2, 3]}}}
    work = bash("work", map={"over": {"x": {"param": "items"}}}, cache="1h")
    total = bash("total", arguments={"all": {"result": "work"}})
    first = start(world.vision, work, total, params=schema)
    finish(first, lambda task: ("succeeded", task.index * 10 if task.index >= 0 else None))
    second = again(first, params={"items": [2, 1, 5]})
    assert outcomes(second) == {"work[0]": "hit", "work[1]": "hit", "work[2]": "miss"}
    end(second, "work", result=50, index=2)
    step()
    assert Job.objects.get(task__run=second, task__name="total").spec["inputs"] == {"all": [10, 0, 50]}
    # All of them at once, and what reads them in the same pass.
    third = again(first, params={"items": [3, 1]})
    assert outcomes(third) == {"work[0]": "hit", "work[1]": "hit"}
    assert Job.objects.get(task__run=third, task__name="total").spec["inputs"] == {"all": [20, 0]}
    group = Task.objects.get(run=third, name="work", index=-1)
    assert (group.state, group.width, group.succeeded) == ("succeeded", 2, 2) and group.started_at is not None


def test_a_cached_decision_decides_also_when_what_is_behind_is_cleared(world: World) -> None:
    pick = bash("pick", decides="branch", cache="1h")
    first = start(world.vision, pick, bash("b", "pick"), bash("c", "pick"))
    end(first, "pick", result="b")
    step()
    finish(first)
    second = again(first)
    assert states(second) == {"pick": "succeeded", "b": "queued", "c": "skipped"}
    finish(second)
    commands.clear(actor=SYSTEM, run_id=second.pk, choice=Choice(("b", "c")))
    step()
    step(review=True)
    assert states(second) == {"pick": "succeeded", "b": "queued", "c": "skipped"}


def test_a_limit_of_active_tasks_holds_back_only_what_runs(world: World) -> None:
    schema = {"type": "object", "properties": {"items": {"type": "array", "default": [1]}}}
    work = bash("work", map={"over": {"x": {"param": "items"}}}, cache="1h")
    first = start(world.vision, work, params=schema, max_active_tasks=1)
    finish(first)
    second = again(first, params={"items": [5, 1, 6]})
    assert {name: state for name, state in states(second).items() if "[" in name} == {
        "work[0]": "queued", "work[1]": "succeeded", "work[2]": "waiting"
    }  # fmt: skip
    assert finish(second) == "succeeded"
    assert outcomes(second) == {"work[0]": "miss", "work[1]": "hit", "work[2]": "miss"}


def test_a_bypass_runs_everything_and_its_result_replaces_the_old_one(world: World) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    finish(first, lambda task: ("succeeded", "old"))
    fresh = again(first, no_cache=True)
    assert outcomes(fresh) == {"a": "bypass"} and states(fresh) == {"a": "queued"}
    finish(fresh, lambda task: ("succeeded", "new"))
    assert Task.objects.get(run=again(first), name="a").result == "new"


@pytest.mark.parametrize(("asked", "parent"), [(True, False), (False, True), (False, False)])
def test_a_run_that_another_one_starts_takes_nothing_from_the_cache_where_either_says_so(
    world: World, asked: bool, parent: bool
) -> None:
    first = start(world.vision, bash("a", cache="1h"), name="child")
    finish(first)
    starts = {"id": "t", "kind": "trigger_run", "trigger_run": {"workflow": "child", "no_cache": asked}}
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(starts, name="parent"))
    commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk, no_cache=parent)
    step()
    step()
    child = Run.objects.get(trigger="workflow")
    assert outcomes(child) == {"a": "bypass" if asked or parent else "hit"}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_backfill_may_take_nothing_from_the_cache(world: World, fresh: bool) -> None:
    first = start(world.vision, bash("a", cache="1h"), schedule="@daily", start_date="2026-03-01")
    finish(first)
    day = datetime(2026, 3, 1, tzinfo=UTC)
    made = commands.create_backfill(
        actor=SYSTEM, workflow_id=first.workflow_id, first=day, last=day + timedelta(days=1), no_cache=fresh
    ).backfill
    commands.advance_backfills(timezone.now())
    step()
    assert [outcomes(run) for run in made.runs.all()] == [{"a": "bypass" if fresh else "hit"}] * 2


@pytest.mark.parametrize("from_cache", [False, True])
def test_a_cleared_task_runs_unless_it_is_asked_from_the_cache(world: World, from_cache: bool) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    finish(first)
    second = again(first)
    assert done(second) == "succeeded"
    commands.clear(actor=SYSTEM, run_id=second.pk, choice=Choice(("a",), from_cache=from_cache))
    step()
    assert states(second) == {"a": "succeeded" if from_cache else "queued"}
    # A third run does not get the result that was not good enough either.
    assert states(again(first)) == {"a": "succeeded" if from_cache else "queued"}


def test_entries_go_with_their_time_and_with_their_run(world: World) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    finish(first)
    CacheUse.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    second = again(first)
    assert outcomes(second) == {"a": "miss"}
    assert caching.forget(timezone.now()) == 1 and not CacheUse.objects.exclude(expires_at=None).exists()
    finish(second)
    assert outcomes(again(first)) == {"a": "hit"}
    Job.objects.filter(task__run=second).delete()
    assert outcomes(again(first)) == {"a": "miss"}


def test_a_version_with_a_shorter_time_does_not_take_what_is_older(world: World) -> None:
    first = start(world.vision, bash("a", cache="1d"))
    finish(first)
    CacheUse.objects.update(stored_at=timezone.now() - timedelta(hours=2))
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", cache="1h")))
    assert outcomes(again(first)) == {"a": "miss"}


def test_other_tenants_have_other_entries(world: World) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    finish(first)
    other = start(world.speech, bash("a", cache="1h"))
    assert outcomes(other) == {"a": "miss"}


def test_two_runs_at_once_both_run_and_the_later_result_is_found(world: World) -> None:
    first = start(world.vision, bash("a", cache="1h"))
    second = again(first)
    assert states(second) == {"a": "queued"}
    finish(first, lambda task: ("succeeded", 1))
    finish(second, lambda task: ("succeeded", 2))
    assert Task.objects.get(run=again(first), name="a").result == 2


def test_a_pass_asks_once_for_all_of_its_tasks_and_not_at_all_without_a_cache(world: World) -> None:
    wide = [bash(f"t{number}", cache="1h", script=f"echo {number}") for number in range(6)]
    first = start(world.vision, *wide)
    finish(first)
    commands.trigger(actor=SYSTEM, workflow_id=first.workflow_id)
    with CaptureQueriesContext(connection, ) as queries:
        step()
    assert sum("workflows_cacheuse" in query["sql"] and "SELECT" in query["sql"] for query in queries) == 2
    plain = start(world.vision, bash("a"), name="plain")
    finish(plain)
    commands.trigger(actor=SYSTEM, workflow_id=plain.workflow_id)
    with CaptureQueriesContext(connection) as queries:
        step()
    assert not [query for query in queries if "cacheuse" in query["sql"]]
