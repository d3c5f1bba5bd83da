"""A DAG of the facts, with what the conversion of each of its tasks asks for."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rmctl.spec.values import IDENTIFIER

from . import checks
from .findings import Findings, Level, Unportable
from .functions import Module, Taken


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller knows: the interpreter of the nodes that has Airflow, and the modules of their own Python."""

    node_python: str
    # The present moment, which says whether a schedule has ended.
    now: datetime
    present: Collection[str] = ()


class Dag:
    """The facts of a DAG and the sources of its file."""

    def __init__(self, facts: Mapping[str, Any], file: Mapping[str, Any], read: Mapping[str, Any], options: Options):
        self.facts, self.options = facts, options
        self.airflow: str = read["airflow"]
        self.path: str = file["file"]
        self.folder = os.path.dirname(self.path)
        # What the author's modules are imported from: the given root, else the folder of the file.
        self.root: str = read["root"] if read["root"] and is_below(self.path, read["root"]) else self.folder
        self.sources: Mapping[str, str] = read["sources"]
        self.module = Module(self.path, self.sources[self.path])
        self.modules: list[str] = file["modules"]
        self.data: list[str] = sorted(file["data"].values())
        self.name = identifier(facts["id"])
        self.tasks = {task["id"]: task for task in facts["tasks"]}
        self.findings = Findings(os.path.basename(self.path), facts["id"])
        local = {self.imported_as(path): (path, self.sources[path]) for path in self.modules}
        self.taken = Taken(self.module, local, options.present)
        self.params: dict[str, Any] = {}
        # The slot pools that its tasks take slots of: how many, by task.
        self.pools: dict[str, dict[str, int]] = {}
        self._before: dict[str, set[str]] = {}

    def imported_as(self, path: str) -> str:
        """Where a module of the author is, below the folder that it is imported from."""
        return os.path.relpath(path, self.folder if is_below(path, self.folder) else self.root)

    def note(self, level: Level, message: str, task: str | None = None) -> None:
        """Add a finding about a task, or about the DAG."""
        self.findings.add(level, message, self.line(task), task)

    def line(self, task: str | None = None) -> int:
        """Where a task, or the DAG, is made."""
        if task is not None:
            function = self.tasks[task]["arguments"].get("python_callable")
            if isinstance(function, Mapping) and function.get("file") == self.path:
                return int(function["line"])
        return self.module.line_of(task or self.facts["id"])

    def before(self, task: str) -> set[str]:
        """Every task that has ended when this one begins."""
        if task not in self._before:
            found: set[str] = set()
            waiting = list(self.tasks[task]["upstream"])
            while waiting:
                name = waiting.pop()
                if name not in found:
                    found.add(name)
                    waiting += self.tasks[name]["upstream"]
            self._before[task] = found
        return self._before[task]

    def is_read(self, task: str) -> bool:
        """Whether any task reads the XCom of this one, as far as the file shows."""
        return task in self._read()

    def _read(self) -> set[str]:
        if not hasattr(self, "_names_read"):
            found = checks.pulled_in_text(self.module.text)
            for task in self.tasks.values():
                found |= checks.pulled([task["arguments"], task.get("map")])
            self._names_read = found
        return self._names_read

    def checked(self, task: Mapping[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
        """The definition if all its templates render here as in Airflow. Raises Unportable."""
        parts = [definition.get("script"), definition.get("env"), definition.get("arguments")]
        if checks.is_template(parts):
            if self.facts["owner_macros"] and any(name in str(parts) for name in self.facts["owner_macros"]):
                raise Unportable("its template uses macros or filters of the DAG's own")
            if self.facts["render_template_as_native_obj"]:
                raise Unportable("the DAG renders its templates as Python objects")
            if task["params"]:
                raise Unportable("it has params of its own")
            checks.check_templates(definition, self.before(task["id"]), self.params)
        return definition


def is_below(path: str, folder: str) -> bool:
    """Whether a file is in a folder or below it."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def identifier(name: str) -> str:
    """An id of Airflow as one of ours: ASCII, and beginning with a letter or `_`."""
    if IDENTIFIER.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:199]
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
