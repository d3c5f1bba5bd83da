"""Any DAG with any outcomes of its jobs, through the loop and the database, against a naive reference."""

from collections import Counter, defaultdict
from itertools import product, zip_longest
from random import Random
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core.actors import SYSTEM
from apps.jobs.models import Job
from apps.workflows import commands, moved, unmade
from apps.workflows.giving import apply
from apps.workflows.models import CacheUse, Run, SlotClaim, SlotPool, Task
from apps.workflows.observe import Observed, Work
from apps.workflows.progress import Progress
from engine.dag import RULES, Counters, TaskState, mapped_outcome, outcome
from tests.apps.workflows.driver import end_job, start, states, step
from tests.personas import World

pytestmark = pytest.mark.django_db

OVER_RESULTS = ("mapped_over_result", "product_of_result", "zip_of_result")
KINDS = ("bash", "bash", "bash", "empty", "mapped", "product", *OVER_RESULTS)
# Of each mapped task so few instances are made before they start, so that most come later.
WINDOW = 2
WIDTH_MAX = 40
IDLE = ["waiting", "queued"]
# All tasks with a cache have the same script, so that many find what others have made of the same item.
CACHE = {"cache": "1h"}
SLOTS: dict[str, Any] = {"slots": {}}
BESIDES: list[dict[str, Any]] = [
    {}, {}, {}, CACHE, SLOTS, {"slots": {"count": 2}}, {"max_active": 1}, {"max_active_per_run": 2},
    {**CACHE, **SLOTS}, {**CACHE, "max_active_per_run": 1},
]  # fmt: skip
LIMITS = {"slots", "max_active", "max_active_per_run"}
SIZE = 2
SETTLE = Progress.settle


@st.composite
def dags(draw: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Tasks in topological order, and the outcome of each job: `name` or `name[index]` → state.

    They come from a seed, since drawn one by one most would be alike: small, and without skips of skips.
    """
    random = Random(draw(st.integers(0, 2**32)))
    tasks: list[dict[str, Any]] = []
    for number in range(random.randint(2, 9)):
        known = [task["id"] for task in tasks]
        upstream = random.sample(known, min(len(known), random.choice([0, 1, 1, 1, 2, 2, 3])))
        kind = random.choice(KINDS if upstream else KINDS[: -len(OVER_RESULTS)])
        task = {
            "id": f"t{number}",
            "kind": "empty" if kind == "empty" else "bash",
            "upstream": upstream,
            "trigger_rule": random.choice([*sorted(RULES), "all_success", "all_done"]),
        }
        if kind != "empty":
            task["script"] = "true"
        mapping = _map(kind, upstream, random)
        if mapping:
            task["map"] = {**mapping, "limit": WIDTH_MAX}
        tasks.append(task)
    for task in tasks:
        if task["kind"] == "bash":
            task |= random.choice(BESIDES)
    keys = [key for task in tasks for key in (task["id"], *(f"{task['id']}[{index}]" for index in range(WIDTH_MAX)))]
    ends = ["succeeded"] * 5 + ["failed", "failed", "cancelled"]
    return tasks, {key: random.choice(ends) for key in keys}


def _map(kind: str, upstream: list[str], random: Random) -> dict[str, Any]:
    """The map of a task of this kind."""
    x, y = ({"value": list(range(random.randint(0, most)))} for most in (5, 3))
    match kind:
        case "mapped":
            return {"over": {"x": x}}
        case "product":
            return {"over": {"x": x, "y": y}}
        case "mapped_over_result":
            return {"over": {"x": {"result": upstream[0]}}}
        case "product_of_result":
            return {"over": {"x": {"result": upstream[0]}, "y": y}}
        case "zip_of_result":
            return {"zip": {"x": {"result": upstream[0]}, "y": y}, **random.choice([{}, {"fill": None}])}
    return {}


def expected(tasks: list[dict[str, Any]], ends: dict[str, str], rounds: list[list[str]]) -> dict[str, str]:
    """States in the end, by trying every task again in topological order after each of the `rounds` of tasks that have
    ended together. Those that ended by their rule may be among them: these have ended here already."""
    by_id = {task["id"]: task for task in tasks}
    state = dict.fromkeys(by_id, TaskState.WAITING)
    decided: set[str] = set()
    counters = {name: Counters(total=len(task["upstream"])) for name, task in by_id.items()}

    def finish(name: str, to: TaskState) -> None:
        state[name] = to
        for other, task in by_id.items():
            if name in task["upstream"]:
                teardown = task["trigger_rule"] == "all_done_setup_success"  # Without a setup before it: all_done.
                counters[other].count(TaskState.SUCCEEDED if teardown else to, task["trigger_rule"])

    def settle() -> None:
        for name, task in by_id.items():
            if name in decided or (what := outcome(task["trigger_rule"], counters[name])) == "wait":
                continue
            decided.add(name)
            if what != "run":
                finish(name, TaskState.SKIPPED if what == "skip" else TaskState.UPSTREAM_FAILED)

    settle()
    for names in rounds:
        for name in names:
            if state[name] == TaskState.WAITING:
                assert name in decided, f"{name} ended before its rule was decided"
                finish(name, TaskState(ends[name]))
        settle()
    return {name: str(to) for name, to in state.items()}


@given(dag=dags(), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_run_ends_as_the_rules_say(
    world: World, monkeypatch: pytest.MonkeyPatch, dag: Any, data: st.DataObject
) -> None:
    tasks, ends = dag
    told: set[int] = set()
    monkeypatch.setattr(unmade, "WINDOW", WINDOW)
    monkeypatch.setattr(moved, "tell_runs", told.update)
    rounds = recorded_rounds(monkeypatch)
    limit = data.draw(st.sampled_from([0, 0, 1, 2]))
    fields = data.draw(st.sampled_from([{}, {}, {"max_active_tasks_all_runs": 2}]))
    CacheUse.objects.all().delete()
    tasks = with_pool(world, tasks)
    run = start(world.vision, *tasks, name=f"w{Run.objects.count()}", max_active_tasks=limit, **fields)
    rest(told)
    for _ in range(400):
        run.refresh_from_db()
        if run.ended_at is not None:
            break
        jobs = list(Job.objects.filter(task__run=run, task__state__in=["queued", "running"]).order_by("id"))
        assert jobs, f"the run waits for nothing: {states(run)}"
        assert not limit or len(jobs) <= limit
        require_limits(tasks, jobs, fields, limit)
        idle = Counter(Task.objects.filter(run=run, index__gte=0, state__in=IDLE).values_list("name", flat=True))
        assert all(count <= WINDOW for count in idle.values())
        job = data.draw(st.sampled_from(jobs))
        task = Task.objects.get(job=job)
        end_job(job, ends[str(task)], [1, 2])
        step()
        rest(told)
    assert run.ended_at is not None, f"the run did not end: {states(run)}"
    final = {task.name: task.state for task in Task.objects.filter(run=run, index=-1)}
    by_id = {task["id"]: task for task in tasks}
    mapped = {task["id"] for task in tasks if "map" in task}
    for name in mapped:
        group = Task.objects.get(run=run, name=name, index=-1)
        instances = [TaskState(row.state) for row in Task.objects.filter(run=run, name=name, index__gte=0)]
        if group.width:
            assert len(instances) == group.width
            assert group.state == mapped_outcome(instances)
            assert group.width == width_of(by_id[name]["map"], given_results(run, by_id[name]["map"]))
    # A mapped task ends as its instances say (above), one with a cache perhaps by the result of another; the rules
    # decide the rest.
    hits = set(CacheUse.objects.filter(run=run, outcome="hit").values_list("name", flat=True))
    empty = {task["id"] for task in tasks if task["kind"] == "empty"}
    given_ends = {name: final[name] if name in mapped | hits else ends[name] for name in final}
    given_ends |= dict.fromkeys(empty, "succeeded")
    assert final == expected(tasks, given_ends, rounds[run.pk])
    assert not SlotClaim.objects.filter(run=run).exists()
    assert not Task.objects.filter(run=run, state__in=["waiting", "queued", "running"]).exists()
    leaves = {task["id"] for task in tasks} - {name for task in tasks for name in task["upstream"]}
    failing = {"failed", "upstream_failed", "cancelled"}
    assert run.state == ("failed" if any(final[name] in failing for name in leaves) else "succeeded")


def recorded_rounds(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[list[str]]]:
    """Which tasks of each run have ended together, again and again, as far as rules are asked about it."""
    rounds: dict[int, list[list[str]]] = defaultdict(list)

    def recording(progress: Progress) -> None:
        rounds[progress.run.pk].append(list(progress.finished))
        SETTLE(progress)

    monkeypatch.setattr(Progress, "settle", recording)
    return rounds


def with_pool(world: World, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks with a slot pool of their own: an example that went wrong before may hold slots."""
    few = commands.create_slot_pool(actor=SYSTEM, tenant=world.vision, name=f"few{SlotPool.objects.count()}", size=SIZE)
    return [task | {"slots": task["slots"] | {"name": few.name}} if "slots" in task else task for task in tasks]


def rest(told: set[int]) -> None:
    """Do what passes told the loop to do, until they tell it nothing more."""
    for _ in range(60):
        if not told:
            return
        work = {run: Work(review=True) for run in told}
        told.clear()
        apply(Observed(work), timezone.now())
    raise AssertionError("passes go on and on")


def require_limits(tasks: list[dict[str, Any]], jobs: list[Job], fields: dict[str, int], limit: int) -> None:
    """No more is in flight than the limits over runs allow; whatever has no job holds nothing."""
    active = Counter(job.task.name for job in jobs)
    by_id = {task["id"]: task for task in tasks}
    taken = {name: by_id[name]["slots"].get("count", 1) * n for name, n in active.items() if "slots" in by_id[name]}
    assert sum(taken.values()) <= SIZE
    for name, count in active.items():
        assert count <= by_id[name].get("max_active", count)
        assert count <= by_id[name].get("max_active_per_run", count)
    assert len(jobs) <= fields.get("max_active_tasks_all_runs", len(jobs))
    claimed = set(SlotClaim.objects.filter(run=jobs[0].task.run_id, held=True).values_list("task", flat=True))
    limited = {job.task.pk for job in jobs if fields or by_id[job.task.name].keys() & LIMITS}
    # What has its place may have to wait until its run has one as well.
    assert limited == claimed if not limit else limited <= claimed


def width_of(mapping: dict[str, Any], results: list[Any]) -> int:
    """How many instances there are to be, counted one by one."""
    sources = (mapping.get("over") or mapping["zip"]).values()
    lists = [results if "result" in source else source["value"] for source in sources]
    return len(list(product(*lists) if "over" in mapping else zip_longest(*lists)))


def given_results(run: Run, mapping: dict[str, Any]) -> list[Any]:
    """What the task returned that a map reads; every job returns [1, 2]."""
    for source in (mapping.get("over") or mapping["zip"]).values():
        if "result" in source:
            upstream = Task.objects.get(run=run, name=source["result"], index=-1)
            return [1, 2] if upstream.width is None else [None] * upstream.width
    return []
