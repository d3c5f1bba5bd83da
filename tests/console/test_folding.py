"""Graphs of any size: groups, layers, the critical path, and what versions change. Pure functions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from apps.console import diffs, folding, graphs
from tests.console.large import layered_definition, small_definition

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def box(name: str, state: str = "none", **more: Any) -> dict[str, Any]:
    """A task's box."""
    return {"id": name, "label": name, "sub": "", "state": state, "width": None, "counts": {}, "panel": "", **more}


NESTED = [box("start"), box("load.eu.a"), box("load.eu.b"), box("load.us"), box("end")]
EDGES = [
    ("start", "load.eu.a"), ("start", "load.us"), ("load.eu.a", "load.eu.b"), ("load.eu.b", "end"), ("load.us", "end")
]


def test_a_small_graph_is_open() -> None:
    graph = folding.fold(NESTED, EDGES)
    assert [task["id"] for task in graph["tasks"]] == [item["id"] for item in NESTED]
    assert [task["parent"] for task in graph["tasks"]] == ["", "load.eu", "load.eu", "load", ""]
    assert graph["groups"] == [
        {"id": "load", "label": "load", "parent": ""},
        {"id": "load.eu", "label": "eu", "parent": "load"},
    ]
    assert graph["edges"] == [list(edge) for edge in EDGES]


def test_a_closed_group_is_one_box_and_its_own_edges_are_gone() -> None:
    graph = folding.fold(NESTED, EDGES, ["load"])
    assert [(task["id"], task["parent"]) for task in graph["tasks"]] == [
        ("start", ""), ("load.eu", "load"), ("load.us", "load"), ("end", "")
    ]
    assert ["load.eu", "load.eu"] not in graph["edges"]
    path = folding.fold(NESTED, EDGES, ["load"], ["start", "load.eu.a", "load.eu.b", "end"])["path"]
    assert path == [["start", "load.eu"], ["load.eu", "end"]]
    assert ["start", "load.eu"] in graph["edges"]
    outer = folding.fold(NESTED, EDGES, ["load.eu"])  # What is inside of a closed group stays closed.
    assert [task["id"] for task in outer["tasks"]] == ["start", "load", "end"]
    assert outer["groups"] == []
    assert outer["tasks"][1] | {"width": 3, "tasks": 3, "group": True} == outer["tasks"][1]


def test_a_group_says_how_its_tasks_are() -> None:
    boxes = [box("g.a", "succeeded"), box("g.b", "running"), box("g.c", "upstream_failed"), box("g.d", "waiting")]
    joined = folding.fold(boxes, [], [])["tasks"][0]
    assert (joined["state"], joined["sub"]) == ("upstream_failed", "2 of 4 tasks")
    assert joined["counts"] == {"succeeded": 1, "running": 1, "failed": 1, "waiting": 1}


def test_a_prefix_of_one_task_or_of_a_tasks_own_name_is_no_group() -> None:
    graph = folding.fold([box("a.b"), box("c"), box("c.x"), box("c.y")], [], [])
    assert [task["id"] for task in graph["tasks"]] == ["a.b", "c", "c.x", "c.y"]


def test_ten_thousand_tasks_are_few_boxes() -> None:
    definition = layered_definition("wide")
    graph = graphs.of_version(definition)
    assert len(graph["tasks"]) == 100
    assert all(task["group"] and task["tasks"] == 100 for task in graph["tasks"])
    flat = [box(task["id"].replace(".", "-")) for task in definition["tasks"]]
    edges = [(a.replace(".", "-"), b.replace(".", "-")) for a, b in graphs.edges(definition)]
    layered = folding.fold(flat, edges)
    assert len(layered["tasks"]) == 100
    assert sum(task["tasks"] for task in layered["tasks"]) == 10_000
    assert not any(task["group"] for task in layered["tasks"])
    chain = [box(f"t{place}") for place in range(10_000)]
    long = folding.fold(chain, [(f"t{place}", f"t{place + 1}") for place in range(9_999)])
    assert len(long["tasks"]) <= folding.BOXES_MAX


def test_the_critical_path_is_who_was_waited_for() -> None:
    def span(start: int, end: int | None) -> tuple[datetime, datetime | None]:
        return NOW + timedelta(seconds=start), None if end is None else NOW + timedelta(seconds=end)

    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    spans = {"a": span(0, 1), "b": span(1, 9), "c": span(1, 5), "d": span(9, 12)}
    assert folding.critical_path(edges, spans, NOW) == ["a", "b", "d"]
    running = {"a": span(0, 1), "b": span(2, None), "c": span(1, None)}
    assert folding.critical_path(edges, running, NOW + timedelta(seconds=20)) == ["a", "c"]
    assert folding.critical_path(edges, {}, NOW) == []


def test_what_a_version_changes() -> None:
    before = small_definition("etl")
    after = {**before, "schedule": "@daily", "tasks": [{**task} for task in before["tasks"] if task["id"] != "report"]}
    after["tasks"][1]["script"] = "false"
    after["tasks"].append({"id": "publish", "kind": "bash", "script": "true", "upstream": ["score"]})
    found = diffs.difference(before, after)
    assert (found.added, found.changed, found.removed) == (("publish",), ("clean",), ("report",))
    assert found.settings == ("schedule",)
    drawn = {task["id"]: task.get("mark") for task in diffs.graph(before, after, None)["tasks"]}
    assert drawn == {
        "extract": None, "clean": "changed", "train": None, "score": None, "check": None,
        "publish": "added", "report": "removed",
    }  # fmt: skip
    assert ["score", "report"] in diffs.graph(before, after, None)["edges"]
    rows = list(diffs.lines(before, after))
    assert ("del", '-      "script": "true",') in rows
    assert ("add", '+      "script": "false",') in rows
    assert not diffs.difference(before, before)
    assert list(diffs.lines(before, before)) == []
