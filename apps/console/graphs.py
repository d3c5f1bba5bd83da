"""The graph of a workflow or a run as the page draws it: pure functions of a definition and of task rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from apps.workflows.states import TASK_ACTIVE
from rmctl.spec.mapping import sources as lists_of

from . import folding
from .words import duration

# The icon on the box of a task that is more than a script or a function.
ICONS = {
    "poke": "eye",
    "setup": "power",
    "teardown": "trash-2",
    "branch": "git-branch",
    "short_circuit": "git-branch",
    "wait_until": "clock",
    "wait_for": "clock",
    "wait_for_run": "hourglass",
    "wait_for_dataset": "boxes",
    "trigger_run": "rocket",
    "approval": "user",
    "service": "server",
}


class Kind(NamedTuple):
    """What kind of task it is, in words and as an icon, the group that it is in (or ""), and whether it is mapped."""

    words: str
    icon: str = ""
    group: str = ""
    mapped: bool = False


@dataclass(slots=True)
class TaskView:
    """One task of a run as pages show it; a mapped one with the counts of its instances by state.

    When it began and ended are seconds since the epoch: a graph has thousands of tasks, and shows few of their times.
    """

    name: str
    state: str
    kind: Kind
    width: int | None = None
    detail: str = ""
    began: float | None = None
    ended: float | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def started_at(self) -> datetime | None:
        return None if self.began is None else datetime.fromtimestamp(self.began, UTC)

    @property
    def ended_at(self) -> datetime | None:
        return None if self.ended is None else datetime.fromtimestamp(self.ended, UTC)

    @property
    def done(self) -> int:
        """Instances that have ended."""
        return sum(count for state, count in self.counts.items() if state not in TASK_ACTIVE)

    @property
    def failed(self) -> int:
        """Instances that did not do their work."""
        return sum(self.counts.get(state, 0) for state in ("failed", "upstream_failed", "cancelled"))

    def seconds(self, now: datetime) -> float | None:
        """How long it has taken, or took."""
        if self.began is None:
            return None
        return max(0.0, (now.timestamp() if self.ended is None else self.ended) - self.began)

    def said(self, now: datetime) -> str:
        """The second line of its box."""
        took = self.seconds(now)
        if self.kind.mapped:
            if self.width is None:
                return "mapped, not expanded yet" if self.state == "waiting" else self.state.replace("_", " ")
            failed = f", {self.failed:,} failed" if self.failed else ""
            return f"{self.done:,} of {self.width:,}{failed}" + (f" · {duration(took)}" if took is not None else "")
        word = self.state.replace("_", " ")
        return word if took is None else f"{word} · {duration(took)}"


def edges(definition: Mapping[str, Any]) -> list[list[str]]:
    """Every (upstream, task) pair; an argument or a map that takes a result is an edge as well."""
    found: list[list[str]] = []
    for task in definition["tasks"]:
        sources = dict.fromkeys(task.get("upstream") or [])
        arguments = [
            *(task.get("arguments") or {}).values(),
            *(argument for _, argument in lists_of(task.get("map"))),
        ]
        for argument in arguments:
            if isinstance(argument, Mapping) and "result" in argument:
                sources[argument["result"]] = None
        found.extend([source, task["id"]] for source in sources)
    return found


def kind_of(task: Mapping[str, Any]) -> Kind:
    """The kind of a task of a definition."""
    words = ["sensor" if "poke" in task else task["kind"].replace("_", " ")]
    if "decides" in task:
        words.append(task["decides"].replace("_", " "))
    words += [role for role in ("setup", "teardown") if role in task]
    named = [name for name in ("setup", "teardown", "poke") if name in task]
    icon = next((ICONS[name] for name in (*named, task.get("decides", ""), task["kind"]) if name in ICONS), "")
    return Kind(", ".join(words), icon, task.get("group") or "", "map" in task)


def groups(definition: Mapping[str, Any]) -> dict[str, str]:
    """{group: the one that it is in, or ""}."""
    return {group["id"]: group.get("parent") or "" for group in definition.get("groups", [])}


def of_version(definition: Mapping[str, Any], opened: Collection[str] | None = None) -> dict[str, Any]:
    """A version's graph, without states."""
    boxes = [version_box(task) for task in definition["tasks"]]
    return folding.fold(boxes, edges(definition), groups(definition), opened)


def version_box(task: Mapping[str, Any], mark: str = "") -> dict[str, Any]:
    """The box of a task that has no state; marked where another version has it otherwise."""
    kind = kind_of(task)
    return {
        **_box(task["id"], kind),
        "sub": kind.words + (", mapped" if kind.mapped else ""),
        "state": "none",
        "width": 0 if kind.mapped else None,
        "counts": {},
        "panel": "",
        **({"mark": mark} if mark else {}),
    }


def _box(name: str, kind: Kind) -> dict[str, Any]:
    return {
        "id": name,
        "label": folding.label_of(name, kind.group),
        "kind": kind.words,
        "parent": kind.group,
        **({"icon": kind.icon} if kind.icon else {}),
    }


def of_run(
    pairs: Collection[Sequence[str]],
    groups: Mapping[str, str],
    tasks: Collection[TaskView],
    panels: Mapping[str, str],
    now: datetime,
    opened: Collection[str] | None = None,
    path: Sequence[str] = (),
) -> dict[str, Any]:
    """A run's graph with the state of each task; `critical` are those of its longest path."""
    known = {task.name for task in tasks}
    pairs = [pair for pair in pairs if pair[0] in known and pair[1] in known]
    critical = set(path)
    boxes = [
        {
            **_box(task.name, task.kind),
            "sub": task.said(now),
            "state": task.state,
            "width": (task.width or 0) if task.kind.mapped else None,
            "counts": folding.merged(task.counts),
            "panel": panels.get(task.name, ""),
            **({"critical": True} if task.name in critical else {}),
        }
        for task in tasks
    ]
    return folding.fold(boxes, pairs, groups, opened, [name for name in path if name in known])
