"""Where in the author's file a part of a definition was written: for faults with file and line."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import dag

_PACKAGE = str(Path(__file__).parent)
_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


class Place(NamedTuple):
    """A line of a file, counted from 1; `column` is 0 where only the line is known."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")


def _author() -> Place | None:
    """The innermost line that is being run outside of this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


@contextmanager
def noted() -> Iterator[None]:
    """Tasks, edges and DAGs made in the block know where they were made."""
    dag.locate = _author
    try:
        yield
    finally:
        dag.locate = None


def in_dag(made: dag.DAG, field: str) -> Place | None:
    """Where the part of the definition of a DAG with this path, such as `tasks[3].upstream`, was written."""
    match = re.match(r"tasks\[(\d+)\](?:\.(upstream)(?:\[(\d+)\])?)?", field)
    tasks = list(made.tasks.values())
    if match is None or int(match[1]) >= len(tasks):
        return _of(made.place)
    task = tasks[int(match[1])]
    edges = list(task.upstream.values())
    if match[2] and edges:
        edge = edges[int(match[3])] if match[3] and int(match[3]) < len(edges) else edges[-1]
        return _of(edge) or _of(task.place)
    return _of(task.place)


def _of(place: Any) -> Place | None:
    return place if isinstance(place, Place) else None


class YamlPlaces:
    """The same for a YAML file; its text is only read again when somebody asks."""

    def __init__(self, file: Path, text: bytes) -> None:
        self.file, self.text = file, text
        self._root: yaml.Node | None = None

    def __call__(self, field: str) -> Place:
        """The key or item that a path leads to, or the last one on the way that is there."""
        node = self._root = self._root or yaml.compose(self.text, yaml.SafeLoader)
        mark = node.start_mark if node is not None else None
        for name, index in _PART.findall(field):
            found = _step(node, name, int(index) if index else None)
            if found is None:
                break
            mark, node = found
        return Place(str(self.file), mark.line + 1, mark.column + 1) if mark is not None else Place(str(self.file), 1)


def _step(node: Any, name: str, index: int | None) -> tuple[Any, Any] | None:
    """The mark and the node of an entry. Tasks and groups may be a mapping, whose entries count in order."""
    if isinstance(node, yaml.SequenceNode):
        if index is None or index >= len(node.value):
            return None
        return node.value[index].start_mark, node.value[index]
    if not isinstance(node, yaml.MappingNode):
        return None
    entries = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    if index is not None:
        return (entries[index][1].start_mark, entries[index][2]) if index < len(entries) else None
    for key, own, value in entries:
        if key == name:
            return own.start_mark, value
    return None
