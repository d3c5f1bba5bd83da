"""The largest workflows and runs: how many queries their pages take, and how many bytes they send."""

import json
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.workflows.models import Run
from tests.personas import World

from . import large
from .conftest import People

KIB = 1024


@pytest.fixture
def ten_thousand_runs(world: World) -> Run:
    """A workflow with 10,000 runs, of which the newest has a task with 10,000 instances."""
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("nightly"))
    runs = large.make_runs(workflow)
    newest = Run.objects.get(pk=runs[-1])
    large.expand(newest, "check")
    return newest


@pytest.fixture
def ten_thousand_tasks(world: World) -> Run:
    """A run of 10,000 tasks in 100 groups."""
    workflow = large.pushed(world.actor("member"), world.vision, large.layered_definition("wide"))
    return Run.objects.get(pk=large.make_runs(workflow, 2)[-1])


def fetched(people: People, path: str, queries: int, size: int) -> bytes:
    """What the page answers, after a look at what it took."""
    client = people.member
    client.get(path)  # Versions are read once and kept.
    with CaptureQueriesContext(connection) as asked:
        answer = client.get(path)
    assert answer.status_code == 200
    assert len(asked) <= queries, "\n".join(query["sql"][:160] for query in asked)
    assert len(answer.content) <= size, f"{path}: {len(answer.content)} bytes"
    return bytes(answer.content)


def test_a_workflow_with_ten_thousand_runs(ten_thousand_runs: Run, people: People) -> None:
    base = f"/workflows/{ten_thousand_runs.workflow_id}/"
    fetched(people, base, 16, 40 * KIB)
    fetched(people, f"{base}calendar/", 10, 120 * KIB)
    grid = people.member.get(f"{base}grid").json()
    fetched(people, f"{base}grid", 9, 16 * KIB)
    assert len(grid["runs"]) == len(grid["cells"]) == 240
    assert grid["runs"][0][0] == ten_thousand_runs.pk
    older = people.member.get(f"{base}grid?before={grid['older']}").json()
    assert older["runs"][0][0] == grid["runs"][-1][0] - 1  # No run is left out, and none comes twice.
    seen = len(grid["runs"])
    while grid["older"] is not None:
        grid = people.member.get(f"{base}grid?before={grid['older']}").json()
        seen += len(grid["runs"])
    assert seen == large.RUNS
    since = people.member.get(f"{base}grid?since={ten_thousand_runs.pk - 2}").json()
    assert [run[0] for run in since["runs"]] == [ten_thousand_runs.pk - place for place in range(3)]


def test_a_task_with_ten_thousand_instances(ten_thousand_runs: Run, people: People) -> None:
    base = f"/runs/{ten_thousand_runs.pk}/"
    fetched(people, base, 12, 40 * KIB)
    fetched(people, f"{base}graph", 8, 4 * KIB)
    fetched(people, f"{base}gantt", 8, 2 * KIB)
    fetched(people, f"{base}tasks/check/", 10, 40 * KIB)
    fetched(people, f"{base}gantt?task=check", 8, 320 * KIB)
    times = people.member.get(f"{base}gantt?task=check").json()
    assert len(times["names"]) == len(times["letters"]) == len(times["times"]) / 3 == large.TASKS
    panel = people.member.get(f"{base}tasks/check/?state=failed&page=2").content.decode()
    assert panel.count('<span class="status" data-state="failed">') == 50
    graph = people.member.get(f"{base}graph").json()
    mapped = next(task for task in graph["tasks"] if task["id"] == "check")
    assert sum(mapped["counts"].values()) == mapped["width"] == large.TASKS


def test_a_run_of_ten_thousand_tasks(ten_thousand_tasks: Run, people: People) -> None:
    base = f"/runs/{ten_thousand_tasks.pk}/"
    fetched(people, base, 12, 60 * KIB)
    fetched(people, f"{base}graph", 8, 32 * KIB)
    fetched(people, f"{base}gantt", 8, 640 * KIB)
    grid = fetched(people, f"/workflows/{ten_thousand_tasks.workflow_id}/grid", 9, 320 * KIB)
    assert grid.count(b"stage_99.part_99") == 1  # The names stand once, not once for each run.
    answer = json.loads(grid)
    place = answer["lists"][0].index("stage_99.part_99")
    assert answer["groups"][answer["inside"][0][place]] == ["stage_99", ""]
    listed = people.member.get(base, {"q": "stage_7.part_1", "task_state": "succeeded"}).content.decode()
    assert 'id="task-stage_7.part_1"' in listed
    assert 'id="task-stage_8.part_1"' not in listed


def test_runs_of_several_versions_are_one_grid(world: World, people: People) -> None:
    actor = world.actor("member")
    first = large.small_definition("etl")
    workflow = large.pushed(actor, world.vision, first)
    large.make_runs(workflow, 3)
    large.pushed(actor, world.vision, {**first, "tasks": first["tasks"][:2]})
    workflow.refresh_from_db()
    large.make_runs(workflow, 2)
    grid = people.member.get(f"/workflows/{workflow.pk}/grid").json()
    assert [len(letters) for _, letters in grid["cells"]] == [2, 2, 6, 6, 6]
    assert grid["lists"][grid["cells"][0][0]] == ["extract", "clean"]
    states = {grid["states"][ord(letter) - ord("a")] for _, letters in grid["cells"] for letter in letters}
    assert states == {"succeeded"}


@pytest.mark.parametrize("query", ["?day=2026-02-31", "?day=yesterday", "?year=99999", "?year=x"])
def test_no_such_day(world: World, people: People, query: str) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    assert people.member.get(f"/workflows/{workflow.pk}/calendar/{query}").status_code == 400


def test_a_day_of_the_calendar_lists_its_runs(world: World, people: People) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    runs = large.make_runs(workflow, 3, every="1 day")
    made = Run.objects.get(pk=runs[1]).created_at
    page = people.member.get(f"/workflows/{workflow.pk}/calendar/?day={made:%Y-%m-%d}").content.decode()
    assert f'id="run-{runs[1]}"' in page
    assert f'id="run-{runs[0]}"' not in page
    assert f'title="{made:%d %b %Y}: 1 succeeded"' in page


def test_the_calendar_goes_by_logical_time_in_the_workflow_s_zone(world: World, people: People) -> None:
    definition = {**large.small_definition("etl"), "timezone": "Europe/Berlin"}
    workflow = large.pushed(world.actor("member"), world.vision, definition)
    (run,) = large.make_runs(workflow, 1)
    # Made today for a day of long ago, as by a backfill: there it is still the 30th in UTC.
    Run.objects.filter(pk=run).update(logical_time=datetime(2023, 6, 30, 22, 30, tzinfo=UTC))
    page = people.member.get(f"/workflows/{workflow.pk}/calendar/?day=2023-07-01").content.decode()
    assert 'title="01 Jul 2023: 1 succeeded"' in page
    assert f'id="run-{run}"' in page
    base = f"/workflows/{workflow.pk}/calendar/"
    assert "1 succeeded" in people.member.get(base).content.decode()  # It opens where the latest run is.
    assert "1 succeeded" not in people.member.get(base, {"year": 2024}).content.decode()
