"""What is different between two versions of a workflow: pure functions of their definitions."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apps.execution.sources import Sources

from .folding import fold
from .graphs import edges, groups, version_box

# Lines of a difference that are shown.
LINES_MAX = 4_000
CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of tasks that were added, changed and removed, and whether anything else is different."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    settings: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.settings)

    @property
    def marks(self) -> dict[str, str]:
        """What became of each task that is not as it was."""
        found = dict.fromkeys(self.added, "added") | dict.fromkeys(self.changed, "changed")
        return found | dict.fromkeys(self.removed, "removed")


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """From one definition to another."""
    old, new = _tasks(before), _tasks(after)
    settings = sorted((before.keys() | after.keys()) - {"tasks"})
    return Difference(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        removed=tuple(name for name in old if name not in new),
        settings=tuple(name for name in settings if before.get(name) != after.get(name)),
    )


def _tasks(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {task["id"]: task for task in definition["tasks"]}


def graph(before: Mapping[str, Any], after: Mapping[str, Any], opened: list[str] | None) -> dict[str, Any]:
    """The graph of the later definition with its differences marked, and what was removed beside it."""
    marks = difference(before, after).marks
    gone = [task for task in before["tasks"] if marks.get(task["id"]) == "removed"]
    boxes = [version_box(task, marks.get(task["id"], "")) for task in (*after["tasks"], *gone)]
    present = {box["id"] for box in boxes}
    removed = {task["id"] for task in gone}
    pairs = edges(after) + [pair for pair in edges(before) if removed.intersection(pair) and present.issuperset(pair)]
    return fold(boxes, pairs, groups(before) | groups(after), opened)


def lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the difference of two definitions."""
    return text_lines(text(before), text(after))


def text_lines(before: str, after: str) -> Iterator[tuple[str, str]]:
    """(what it is, text) of each line of the difference: `head`, `add`, `del` or nothing, with three lines around."""
    count = 0
    for row in difflib.unified_diff(before.split("\n"), after.split("\n"), n=CONTEXT, lineterm=""):
        count += 1
        if count <= 2:  # The names of the files, which have none.
            continue
        if count > LINES_MAX:
            yield "head", "… the rest is not shown"
            return
        yield {"+": "add", "-": "del", "@": "head"}.get(row[:1], ""), row


def changed_files(before: Sources, after: Sources) -> list[dict[str, Any]]:
    """The files of two bundles that are not the same: {"name", "what": added, changed or removed, "lines"}."""
    old, new = ({file.name: file for file in sources.files} for sources in (before, after))
    found = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        what = "added" if one is None else "removed" if other is None else "changed"
        texts = [file.text for file in (one, other) if file is not None]
        shown = None not in texts  # Of what is no text only the size is known.
        found.append(
            {
                "name": name,
                "what": what,
                "lines": list(text_lines(one.text or "" if one else "", other.text or "" if other else ""))
                if shown
                else [],
            }
        )
    return found


def text(definition: Mapping[str, Any]) -> str:
    """A definition as people read it: its own settings first, then task by task."""
    settings = {key: value for key, value in definition.items() if key != "tasks"}
    return json.dumps({**settings, "tasks": definition["tasks"]}, indent=2, ensure_ascii=False)
