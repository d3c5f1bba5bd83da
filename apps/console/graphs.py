"""The graph of a workflow or a run as the page draws it: pure functions of a definition and of task rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import folding
from .words import duration


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
        return sum(count for state, count in self.counts.items() if state not in ("waiting", "queued", "running"))

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


def of_version(definition: Mapping[str, Any], opened: Collection[str] | None = None) -> dict[str, Any]:
    """A version's graph, without states."""
    return folding.fold([version_box(task) for task in definition["tasks"]], edges(definition), opened)


def version_box(task: Mapping[str, Any], mark: str = "", panel: str = "") -> dict[str, Any]:
    """The box of a task that has no state; marked where another version has it otherwise."""
    return {
        "id": task["id"],
        "label": task["id"].rpartition(".")[2],
        "sub": f"{task['kind']}, mapped" if "map" in task else task["kind"],
        "state": "none",
        "width": 0 if "map" in task else None,
        "counts": {},
        "panel": panel,
        **({"mark": mark} if mark else {}),
    }


def of_run(
    pairs: Collection[Sequence[str]],
    tasks: Collection[TaskView],
    panels: Mapping[str, str],
    now: datetime,
    opened: Collection[str] | None = None,
) -> dict[str, Any]:
    """A run's graph with the state of each task; `critical` are those that made it take as long as it did."""
    known = {task.name for task in tasks}
    pairs = [pair for pair in pairs if pair[0] in known and pair[1] in known]
    begun = {task.name: task.started_at or task.queued_at or task.ended_at for task in tasks}
    spans = {task.name: (since, task.ended_at) for task in tasks if (since := begun[task.name]) is not None}
    path = folding.critical_path(pairs, spans, now)
    critical = set(path)
    boxes = [
        {
            "id": task.name,
            "label": task.name.rpartition(".")[2],
            "sub": task.said(now),
            "state": task.state,
            "width": (task.width or 0) if task.mapped else None,
            "counts": folding.merged(task.counts),
            "panel": panels.get(task.name, ""),
            **({"critical": True} if task.name in critical else {}),
        }
        for task in tasks
    ]
    return folding.fold(boxes, pairs, opened, path)
