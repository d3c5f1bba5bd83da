"""A graph of any size as one that can be drawn: groups of tasks as one box each, long layers as one box each.

Pure functions. Groups are those of the definition, as {group: the one that it is in, or ""}.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from apps.workflows.states import TASK_ACTIVE

# Boxes that are drawn; what is more is drawn as one box for each layer.
BOXES_MAX = 320
# Groups of a graph with so few tasks are open at first.
OPEN_MAX = 60
# What a box of many says: the first of these states that one of them is in.
VERDICTS = (
    "failed", "upstream_failed", "running", "queued", "deferred", "waiting", "cancelled", "succeeded", "skipped"
)  # fmt: skip

Box = dict[str, Any]


def fold(
    boxes: Sequence[Box],
    edges: Iterable[Sequence[str]],
    groups: Mapping[str, str],
    opened: Collection[str] | None = None,
    path: Sequence[str] = (),
) -> dict[str, Any]:
    """{"tasks": boxes to draw, "edges": pairs of their ids, "groups": open groups as {id, label, parent}, "path": …}.

    A task's `parent` is the group that it is in, or "", and becomes the open one that it is drawn in. `opened` are
    the groups whose tasks are drawn; None: all of a small graph, none of a larger one. A box that stands for several
    has `tasks`, how many, and `group` if it can be opened. The answer's path is the pairs of boxes that the tasks of
    `path` lead through.
    """
    if opened is None:
        opened = groups if len(boxes) <= OPEN_MAX else ()
    edges = [(edge[0], edge[1]) for edge in edges]
    places = {name: _place(name, groups, opened) for name in ("", *groups)}
    unit = {box["id"]: places[box["parent"]][0] or box["id"] for box in boxes}
    if len(set(unit.values())) > BOXES_MAX:
        unit = _by_layers(unit, edges, groups)
    members: dict[str, list[Box]] = {}
    for box in boxes:
        members.setdefault(unit[box["id"]], []).append(box)
    drawn = []
    for name, found in members.items():
        inside = {places[box["parent"]][1] for box in found}
        parent = inside.pop() if len(inside) == 1 else ""
        single = len(found) == 1 and name == found[0]["id"]
        drawn.append({**(found[0] if single else _joined(name, found, groups)), "parent": parent})
    shown = {group for box in drawn for group in _chain(box["parent"], groups)}
    return {
        "tasks": drawn,
        "edges": _pairs(unit, edges),
        "path": _pairs(unit, pairwise(path)),
        "groups": [
            {"id": name, "label": label_of(name, groups[name]), "parent": groups[name]} for name in sorted(shown)
        ],
    }


def label_of(name: str, group: str) -> str:
    """The name of a task or a group without the prefix that the frame of its group says already."""
    return name.removeprefix(f"{group}.") if group else name


def _pairs(unit: Mapping[str, str], edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Edges between tasks as those between boxes, each once."""
    return [[a, b] for a, b in dict.fromkeys((unit[a], unit[b]) for a, b in edges) if a != b]


def _chain(name: str, groups: Mapping[str, str]) -> list[str]:
    """A group and those that it is in, outermost first."""
    found = []
    while name:
        found.append(name)
        name = groups[name]
    return found[::-1]


def _place(name: str, groups: Mapping[str, str], opened: Collection[str]) -> tuple[str, str]:
    """(The closed group that stands for what is in this one, or "", the innermost open group that is drawn in.)"""
    inside = ""
    for group in _chain(name, groups):
        if group not in opened:
            return group, inside
        inside = group
    return "", inside


def _by_layers(
    unit: Mapping[str, str], edges: Sequence[tuple[str, str]], groups: Collection[str]
) -> dict[str, str]:
    """Units, where tasks (and groups, if these are too many as well) are joined by how far they are from the start."""
    most = BOXES_MAX // 2
    kept = {name for name in unit.values() if name in groups}
    if len(kept) > most:
        kept = set()
    depth = depths(unit, edges)
    layers = max(depth.values()) + 1
    joined = {}
    for task, name in unit.items():
        layer = depth[task] if layers <= most else depth[task] * most // layers
        joined[task] = name if name in kept else f"layer {layer + 1}"
    return joined


def depths(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The longest way to each task from one that waits for nobody."""
    waits = dict.fromkeys(names, 0)
    following: dict[str, list[str]] = {name: [] for name in waits}
    for source, target in edges:
        waits[target] += 1
        following[source].append(target)
    depth = dict.fromkeys(waits, 0)
    ready = [name for name, count in waits.items() if not count]
    while ready:
        name = ready.pop()
        for target in following[name]:
            depth[target] = max(depth[target], depth[name] + 1)
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    return depth


def _joined(name: str, boxes: Sequence[Box], groups: Mapping[str, str]) -> Box:
    """One box for several tasks."""
    counts: dict[str, int] = {}
    for box in boxes:
        counts[box["state"]] = counts.get(box["state"], 0) + 1
    done = sum(count for state, count in counts.items() if state not in TASK_ACTIVE and state != "none")
    stated = "none" not in counts
    marks = {box["mark"] for box in boxes if box.get("mark")}
    return {
        "id": name,
        "label": label_of(name, groups.get(name, "")),
        "sub": f"{done} of {len(boxes)} tasks" if stated else f"{len(boxes)} tasks",
        "state": verdict(counts) if stated else "none",
        "width": len(boxes),
        "counts": merged(counts),
        "panel": "",
        "tasks": len(boxes),
        "group": name in groups,
        **({"mark": "changed"} if marks else {}),
        **({"critical": True} if any(box.get("critical") for box in boxes) else {}),
    }


def verdict(counts: Mapping[str, int]) -> str:
    """The state of several tasks together."""
    return next((state for state in VERDICTS if counts.get(state)), "waiting")


def merged(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by state as bars show them: whatever did not do its work is red."""
    found: dict[str, int] = {}
    for state, count in counts.items():
        name = "failed" if state in ("upstream_failed", "cancelled") else state
        found[name] = found.get(name, 0) + count
    return found
