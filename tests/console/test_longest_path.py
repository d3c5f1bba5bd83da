"""The longest path of a run, on its page and on its graph."""

import re
from datetime import timedelta

from django.utils import timezone

from apps.workflows import path_history
from apps.workflows.models import Run, Task
from tests.personas import World

from . import large
from .conftest import People


def told(people: People, run: Run) -> str:
    """The line of the run's page, without its tags; empty where there is none."""
    page = people.member.get(f"/runs/{run.pk}/").content.decode()
    found = re.search(r'data-testid="longest-path">(.*?)</p>', page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split()) if found else ""


def drawn(people: People, run: Run) -> list[list[str]]:
    """The pairs of the path on its graph."""
    pairs: list[list[str]] = people.member.get(f"/runs/{run.pk}/graph").json()["path"]
    return pairs


def test_a_run_that_has_ended(world: World, people: People) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    run = Run.objects.get(pk=large.make_runs(workflow, 1)[0])
    begin = run.started_at
    assert begin is not None
    for name, start, end in (("extract", 0, 2), ("clean", 2, 3), ("train", 3, 10), ("check", 3, 5), ("score", 11, 14)):
        times = {"started_at": begin + timedelta(seconds=start), "ended_at": begin + timedelta(seconds=end)}
        Task.objects.filter(run=run, name=name).update(**times)
    times = {"queued_at": None, "started_at": None, "ended_at": begin + timedelta(seconds=14)}
    Task.objects.filter(run=run, name="report").update(**times, state="upstream_failed")
    Run.objects.filter(pk=run.pk).update(ended_at=begin + timedelta(seconds=16))
    assert told(people, run) == "Longest path extract → clean → train → score 13 s of 16 s, 81 %"
    assert drawn(people, run) == [["extract", "clean"], ["clean", "train"], ["train", "score"]]


def test_a_run_that_goes_on(world: World, people: People) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    run = Run.objects.get(pk=large.make_runs(workflow, 1)[0])
    now = timezone.now()
    nothing = {"queued_at": None, "started_at": None, "ended_at": None}
    Task.objects.filter(run=run).update(**nothing, state="waiting")
    for name, start, end in (("extract", 20, 12), ("clean", 12, 10)):
        times = {"started_at": now - timedelta(seconds=start), "ended_at": now - timedelta(seconds=end)}
        Task.objects.filter(run=run, name=name).update(**times, state="succeeded")
    Run.objects.filter(pk=run.pk).update(state="running", ended_at=None, started_at=now - timedelta(seconds=20))
    path_history.forget()
    assert told(people, run) == (
        "Longest path extract → clean → train → score → report 10 s so far; no earlier run says how long it takes"
    )
    earlier = Run.objects.get(pk=large.make_runs(workflow, 1)[0])
    assert earlier.started_at is not None
    for name, seconds in (("train", 60), ("score", 60), ("report", 60), ("check", 600)):
        end = earlier.started_at + timedelta(seconds=seconds)
        Task.objects.filter(run=earlier, name=name).update(started_at=earlier.started_at, ended_at=end)
    path_history.forget()
    said = "Longest path extract → clean → check 10 s so far, about 10 min 00 s to go by its latest runs"
    assert told(people, run) == said
    assert drawn(people, run) == [["extract", "clean"], ["clean", "check"]]


def test_a_run_of_which_nothing_has_begun(world: World, people: People) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    run = Run.objects.get(pk=large.make_runs(workflow, 1)[0])
    Task.objects.filter(run=run).update(state="waiting", queued_at=None, started_at=None, ended_at=None)
    Run.objects.filter(pk=run.pk).update(state="queued", started_at=None, ended_at=None)
    assert told(people, run) == ""
    assert drawn(people, run) == []


def test_of_a_long_path_the_ends_are_told(world: World, people: People) -> None:
    tasks = [
        {"id": f"t{place}", "kind": "bash", "script": "true", "upstream": [f"t{place - 1}"] if place else []}
        for place in range(9)
    ]
    workflow = large.pushed(world.actor("member"), world.vision, {"schema": 1, "name": "chain", "tasks": tasks})
    run = Run.objects.get(pk=large.make_runs(workflow, 1)[0])
    assert told(people, run).startswith("Longest path t0 → t1 → 4 more → t6 → t7 → t8 ")
