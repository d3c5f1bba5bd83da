"""Graphs of any size: groups, layers, the critical path, and what versions change. Pure functions."""

from datetime import UTC, datetime
from typing import Any

from apps.console import diffs, folding, graphs
from tests.console.large import layered_definition, small_definition

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def box(name: str, group: str = "", state: str = "none") -> dict[str, Any]:
    """A task's box."""
    return {
        "id": name, "label": name, "sub": "", "state": state, "width": None, "counts": {}, "panel": "", "parent": group
    }  # fmt: skip


GROUPS = {"load": "", "load.eu": "load"}
NESTED = [box("start"), box("load.eu.a", "load.eu"), box("b", "load.eu"), box("load.us", "load"), box("end")]
EDGES = [("start", "load.eu.a"), ("start", "load.us"), ("load.eu.a", "b"), ("b", "end"), ("load.us", "end")]


def test_a_small_graph_is_open() -> None:
    graph = folding.fold(NESTED, EDGES, GROUPS)
    assert [task["id"] for task in graph["tasks"]] == [item["id"] for item in NESTED]
    assert [task["parent"] for task in graph["tasks"]] == ["", "load.eu", "load.eu", "load", ""]
    assert graph["groups"] == [
        {"id": "load", "label": "load", "parent": ""},
        {"id": "load.eu", "label": "eu", "parent": "load"},
    ]
    assert graph["edges"] == [list(edge) for edge in EDGES]


def test_a_closed_group_is_one_box_and_its_own_edges_are_gone() -> None:
    graph = folding.fold(NESTED, EDGES, GROUPS, ["load"])
    assert [(task["id"], task["parent"]) for task in graph["tasks"]] == [
        ("start", ""), ("load.eu", "load"), ("load.us", "load"), ("end", "")
    ]
    assert ["load.eu", "load.eu"] not in graph["edges"]
    path = folding.fold(NESTED, EDGES, GROUPS, ["load"], ["start", "load.eu.a", "b", "end"])["path"]
    assert path == [["start", "load.eu"], ["load.eu", "end"]]
    assert ["start", "load.eu"] in graph["edges"]
    outer = folding.fold(NESTED, EDGES, GROUPS, ["load.eu"])  # What is inside of a closed group stays closed.
    assert [task["id"] for task in outer["tasks"]] == ["start", "load", "end"]
    assert outer["groups"] == []
    assert outer["tasks"][1] | {"width": 3, "tasks": 3, "group": True} == outer["tasks"][1]


def test_a_group_says_how_its_tasks_are() -> None:
    states = ("succeeded", "running", "upstream_failed", "waiting", "deferred")
    boxes = [box(f"t{place}", "g", state) for place, state in enumerate(states)]
    joined = folding.fold(boxes, [], {"g": ""}, [])["tasks"][0]
    assert (joined["state"], joined["sub"]) == ("upstream_failed", "2 of 5 tasks")
    assert joined["counts"] == {"succeeded": 1, "running": 1, "failed": 1, "waiting": 1, "deferred": 1}


def test_groups_are_those_of_the_definition_whatever_the_names() -> None:
    group = {"id": "in", "description": ""}
    tasks: list[dict[str, Any]] = [
        {"id": "in.first", "kind": "bash", "group": "in"},
        {"id": "second", "kind": "bash", "poke": {}, "group": "in"},
        {"id": "a.b", "kind": "python", "decides": "branch"},
        {"id": "a.c", "kind": "wait_until", "map": {"over": {}}},
    ]
    graph = graphs.of_version({"tasks": tasks, "groups": [group]})
    assert [(task["label"], task["parent"]) for task in graph["tasks"]] == [
        ("first", "in"), ("second", "in"), ("a.b", ""), ("a.c", "")
    ]  # fmt: skip
    assert [(task["sub"], task.get("icon")) for task in graph["tasks"]] == [
        ("bash", None), ("sensor", "eye"), ("python, branch", "git-branch"), ("wait until, mapped", "clock")
    ]  # fmt: skip
    assert [task["id"] for task in graphs.of_version({"tasks": tasks, "groups": [group]}, [])["tasks"]] == [
        "in", "a.b", "a.c"
    ]  # fmt: skip


def test_ten_thousand_tasks_are_few_boxes() -> None:
    definition = layered_definition("wide")
    graph = graphs.of_version(definition)
    assert len(graph["tasks"]) == 100
    assert all(task["group"] and task["tasks"] == 100 for task in graph["tasks"])
    flat = [box(task["id"].replace(".", "-")) for task in definition["tasks"]]
    edges = [(a.replace(".", "-"), b.replace(".", "-")) for a, b in graphs.edges(definition)]
    layered = folding.fold(flat, edges, {})
    assert len(layered["tasks"]) == 100
    assert sum(task["tasks"] for task in layered["tasks"]) == 10_000
    assert not any(task["group"] for task in layered["tasks"])
    chain = [box(f"t{place}") for place in range(10_000)]
    long = folding.fold(chain, [(f"t{place}", f"t{place + 1}") for place in range(9_999)], {})
    assert len(long["tasks"]) <= folding.BOXES_MAX
    small = [box(f"t{place}", f"g{place // 2}") for place in range(1_000)]
    many = folding.fold(small, [], {f"g{place}": "" for place in range(500)})
    assert [task["tasks"] for task in many["tasks"]] == [1_000]


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
