"""Everything that can be said of an author's file without a portal: all faults at once, each with file and line."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rmctl.spec import FieldError, SpecError
from rmctl.spec.errors import field_error
from rmctl.spec.review import schedule_faults, unreachable
from rmctl.spec.schedule import clock_warnings

from .compile import CompiledWorkflow, Draft, drafts
from .options import SdkError
from .places import Place
from .usage import Branch, Usage

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault or warning; `place` is where in the author's files it is, if that is known."""

    severity: str
    workflow: str
    field: str
    message: str
    code: str
    place: Place | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        place = self.place
        return {
            "severity": self.severity, "workflow": self.workflow, "field": self.field, "message": self.message,
            "code": self.code, "file": place.file if place else None, "line": place.line if place else None,
            "column": place.column or None if place else None,
        }  # fmt: skip


@dataclass(slots=True)
class Checked:
    """A file's workflows; those that compile have a `compiled`, in the order of the file."""

    drafts: list[Draft] = field(default_factory=list)
    compiled: list[CompiledWorkflow | None] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """What keeps the file from being pushed."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def add(self, draft: Draft, fault: Mapping[str, Any], severity: str = ERROR, place: Place | None = None) -> None:
        """Note a fault of a workflow, unless the same is noted."""
        named = draft.named(field_error(fault["field"], fault["message"], fault["code"]))
        name = draft.definition.get("name")
        where = place or draft.place(fault["field"])
        found = Finding(
            severity, name if isinstance(name, str) else "", named["field"], named["message"], named["code"], where
        )
        if found not in self.findings:
            self.findings.append(found)


def check_file(path: str | os.PathLike[str], now: datetime) -> Checked:
    """Compile a file and look for every fault, those of its functions, graph and schedule included."""
    checked = Checked()
    try:
        checked.drafts = drafts(path)
    except SdkError as error:
        place = Place(str(path), error.line) if error.line else None
        checked.findings.append(Finding(ERROR, "", "", str(error), "unusable_file", place))
        return checked
    for draft in checked.drafts:
        usage = Usage(draft.definition, draft.shipped)
        compiled = None
        try:
            compiled = draft.finish()
        except SpecError as error:
            for fault in error.errors:
                checked.add(draft, fault)
        except SdkError as error:
            checked.add(draft, field_error("", str(error), "unusable_file"))
        checked.compiled.append(compiled)
        for fault in usage.faults():
            checked.add(draft, fault)
        if compiled is not None:
            _review(checked, draft, compiled, usage, now)
    checked.findings.sort(key=lambda found: (found.severity, *(found.place or ("", 0))[:2]))
    return checked


def _review(checked: Checked, draft: Draft, compiled: CompiledWorkflow, usage: Usage, now: datetime) -> None:
    """What can never be of a workflow that is right in itself."""
    definition = compiled.definition
    below: dict[str, list[str]] = {task["id"]: [] for task in definition["tasks"]}
    for task in definition["tasks"]:
        for name in task["upstream"]:
            below[name].append(task["id"])
    branches = usage.branches(below, _groups(definition))
    for fault, place in _wrong_choices(definition, draft, below, branches):
        checked.add(draft, fault, place=place)
    ways = {name: branch.ways for name, branch in branches.items() if not branch.wrong}
    for fault in (*unreachable(definition, ways), *schedule_faults(definition, now)):
        checked.add(draft, fault)
    for sentence in clock_warnings(compiled.spec.schedule, compiled.spec.timezone, now):
        checked.add(draft, field_error("schedule", sentence, "clock_change"), WARNING)


def _wrong_choices(
    definition: Mapping[str, Any], draft: Draft, below: Mapping[str, list[str]], branches: Mapping[str, Branch]
) -> Iterator[tuple[FieldError, Place | None]]:
    """Ids that branches return although nothing of that name is directly behind them, with the line of the return."""
    for position, task in enumerate(definition["tasks"]):
        branch = branches.get(task["id"])
        for line, name in branch.wrong if branch is not None else ():
            there = ", ".join(below[task["id"]]) or "nothing"
            message = f"{task['id']} returns {name!r}, which is not directly behind it; behind it: {there}."
            fault = field_error(f"tasks[{position}].function", message, "unknown_choice")
            yield fault, Place(str(draft.shipped[task["file"]]), line)


def _groups(definition: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every task of each group, those of inner groups included."""
    parents = {group["id"]: group.get("parent") for group in definition.get("groups", ())}
    found: dict[str, list[str]] = {name: [] for name in parents}
    for task in definition["tasks"]:
        owner = task.get("group")
        while owner is not None:
            found[owner].append(task["id"])
            owner = parents[owner]
    return found


def shown(place: Place, folder: Path) -> str:
    """The place as one would type it in this folder."""
    path = Path(place.file)
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    return str(Place(str(relative), place.line, place.column))
