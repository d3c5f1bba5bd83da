"""The graph of a workflow or a run as the page draws it: pure functions of a definition and of task rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .words import duration

ACTIVE = ("waiting", "deferred", "queued", "running")
# The icon on the box of a task that is more than a script or a function.
MARKS = {
    "poke": "eye",
    "setup": "power",
    "teardown": "trash-2",
    "branch": "git-branch",
    "short_circuit": "git-branch",
    "wait_until": "clock",
    "wait_for": "clock",
    "wait_for_run": "hourglass",
    "trigger_run": "rocket",
    "approval": "user",
}


@dataclass(slots=True)
class TaskView:
    """One task of a run as pages show it; a mapped one with the counts of its instances by state."""

    name: str
    state: str
    kind: str = "bash"
    width: int | None = None
    mapped: bool = False
    job_id: int | None = None
    detail: str = ""
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Instances that have ended."""
        return sum(count for state, count in self.counts.items() if state not in ACTIVE)

    @property
    def failed(self) -> int:
        """Instances that did not do their work."""
        return sum(self.counts.get(state, 0) for state in ("failed", "upstream_failed", "cancelled"))

    def seconds(self, now: datetime) -> float | None:
        """How long it has taken, or took."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.ended_at or now) - self.started_at).total_seconds())

    def said(self, now: datetime) -> str:
        """The second line of its box."""
        took = self.seconds(now)
        if self.mapped:
            if self.width is None:
                return "mapped, not expanded yet" if self.state == "waiting" else self.state.replace("_", " ")
            failed = f", {self.failed} failed" if self.failed else ""
            return f"{self.done} of {self.width}{failed}" + (f" · {duration(took)}" if took is not None else "")
        word = self.state.replace("_", " ")
        return word if took is None else f"{word} · {duration(took)}"


def edges(definition: Mapping[str, Any]) -> list[list[str]]:
    """Every (upstream, task) pair; an argument or a map that takes a result is an edge as well."""
    found: list[list[str]] = []
    for task in definition["tasks"]:
        sources = dict.fromkeys(task.get("upstream") or [])
        arguments = [
            *(task.get("arguments") or {}).values(),
            *((task.get("map") or {}).get("over") or {}).values(),
        ]
        for argument in arguments:
            if isinstance(argument, Mapping) and "result" in argument:
                sources[argument["result"]] = None
        found.extend([source, task["id"]] for source in sources)
    return found


def of_version(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A version's graph, without states."""
    tasks = [
        {
            "id": task["id"],
            "label": label_of(task["id"], task.get("group")),
            "sub": kind_of(task)["kind"] + (", mapped" if "map" in task else ""),
            "state": "none",
            "width": 0 if "map" in task else None,
            "counts": {},
            "panel": "",
            **kind_of(task),
        }
        for task in definition["tasks"]
    ]
    return {"tasks": tasks, "edges": edges(definition), "groups": groups(definition)}


def kind_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """What kind of task it is, in words and as a mark, and the group that it is in."""
    what = [task["kind"].replace("_", " ")]
    if "poke" in task:
        what = ["sensor"]
    if "decides" in task:
        what.append(task["decides"].replace("_", " "))
    what += [role for role in ("setup", "teardown") if role in task]
    named = [name for name in ("setup", "teardown", "poke") if name in task]
    mark = next((MARKS[name] for name in (*named, task.get("decides", ""), task["kind"]) if name in MARKS), "")
    return {"kind": ", ".join(what), "mark": mark, "group": task.get("group")}


def label_of(task: str, group: str | None) -> str:
    """The id without the prefix that the frame of its group says already."""
    return task.removeprefix(f"{group}.") if group else task


def groups(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of a definition, outer before inner or not."""
    return [
        {"id": group["id"], "parent": group.get("parent"), "label": group["id"].rpartition(".")[2]}
        for group in definition.get("groups", [])
    ]


def of_run(
    definition: Mapping[str, Any], tasks: Iterable[TaskView], panels: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    """A run's graph with the state of each task."""
    kinds = {task["id"]: kind_of(task) for task in definition["tasks"]}
    found = [
        {
            "id": task.name,
            "label": label_of(task.name, kinds[task.name]["group"]),
            "sub": task.said(now),
            "state": task.state,
            "width": (task.width or 0) if task.mapped else None,
            "counts": _merged(task.counts),
            "panel": panels.get(task.name, ""),
            **kinds[task.name],
        }
        for task in tasks
    ]
    return {"tasks": found, "edges": edges(definition), "groups": groups(definition)}


def _merged(counts: Mapping[str, int]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for state, count in counts.items():
        name = "failed" if state in ("upstream_failed", "cancelled") else state
        merged[name] = merged.get(name, 0) + count
    return merged
