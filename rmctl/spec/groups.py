"""Task groups: tasks that belong together, edges to and from all of them, and what a page may fold.

A definition may name a group where it may name a task in `upstream`, and a group may have `upstream` itself. Both
are written out as edges between tasks before anything else looks at them: those behind a group wait for its last
tasks, its first tasks wait for what the group waits for. Teardowns are neither, as in Airflow.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from .errors import FieldError, did_you_mean, field_error
from .mapping import sources
from .values import Identifier, Strict


class TaskGroupSpec(Strict):
    """A group of tasks; those with its id as prefix (`group.task`) or with `group` belong to it."""

    id: Identifier
    parent: Identifier | None = None
    description: str = Field(default="", max_length=1000)


class _Group:
    def __init__(self, identifier: str, raw: Mapping[str, Any]) -> None:
        self.id = identifier
        self.raw = raw
        self.parent = _name(raw.get("parent"))
        self.upstream = _names(raw.get("upstream"))
        self.members: list[str] = []


class _Task:
    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.id: str = raw["id"]
        teardown = raw.get("teardown")
        self.teardown = teardown is not None
        self.upstream = _names(raw.get("upstream"))
        self.implied = _names(teardown.get("setups")) if isinstance(teardown, Mapping) else []
        arguments = raw.get("arguments")
        given = list(arguments.values()) if isinstance(arguments, Mapping) else []
        for value in (*given, *(argument for _, argument in sources(raw.get("map")))):
            if isinstance(value, Mapping) and isinstance(value.get("result"), str):
                self.implied.append(value["result"])


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def written_out(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[FieldError]]:
    """The definition with every edge of a group as edges of its tasks, and what is wrong with the groups.

    What has the wrong shape is left as it is, for the checks of the fields.
    """
    groups, tasks = data.get("groups", []), data.get("tasks")
    if not isinstance(groups, list) or not isinstance(tasks, list):
        return data, []
    raw_tasks = [task for task in tasks if isinstance(task, Mapping) and isinstance(task.get("id"), str)]
    if not groups and not any("group" in task for task in raw_tasks):
        return data, []
    known: dict[str, _Group] = {}
    errors: list[FieldError] = []
    ids = {task["id"] for task in raw_tasks}
    for position, raw in enumerate(groups):
        if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str):
            return data, []
        if raw["id"] in known or raw["id"] in ids:
            message = f"{raw['id']} names another group or a task already; each needs its own id."
            errors.append(field_error(f"groups[{position}].id", message, "duplicate_id"))
        known[raw["id"]] = _Group(raw["id"], raw)
    found = [_Task(task) for task in raw_tasks]
    owners = {task.id: _name(task.raw.get("group")) or _prefix(task.id, known) for task in found}
    errors += _place(known, owners, found)
    if errors:
        return data, errors
    edges = _Edges(known, {task.id: task for task in found}, owners)
    for position, group in enumerate(known.values()):
        for name in group.upstream:
            if name not in known and name not in ids:
                hint = did_you_mean(name, [*known, *ids])
                message = f"Group {group.id} waits for {name}, which does not exist.{hint}"
                errors.append(field_error(f"groups[{position}].upstream", message, "unknown_upstream"))
    errors += _of_themselves(known, owners, tasks)
    plain = [{key: value for key, value in group.raw.items() if key != "upstream"} for group in known.values()]
    for entry, group in zip(plain, known.values(), strict=True):
        if group.parent is not None:
            entry["parent"] = group.parent
    written = [edges.written(task) for task in tasks]
    return {**data, "groups": plain, "tasks": written}, errors


def _of_themselves(known: Mapping[str, _Group], owners: Mapping[str, Any], tasks: list[Any]) -> Iterator[FieldError]:
    """Groups that wait for themselves, for what is in them or for what they are in, and tasks that wait for a group
    that they are in: such an edge would lead nowhere, or in a circle."""
    for position, group in enumerate(known.values()):
        around = {group.id, *_around(known, group.parent)}
        for name in group.upstream:
            outside = known[name].parent if name in known else owners.get(name)
            if name in around or group.id in _around(known, outside):
                which = "itself" if name == group.id else f"{name}, which it is in" if name in around else ""
                message = f"Group {group.id} waits for {which or f'{name}, which is in it'}."
                yield field_error(f"groups[{position}].upstream", message, "cycle")
    for position, task in enumerate(tasks):
        name = task.get("id") if isinstance(task, Mapping) else None
        around = set(_around(known, owners.get(name))) if isinstance(name, str) else set()
        upstream = task.get("upstream") if around else None
        for number, other in enumerate(upstream if isinstance(upstream, list) else ()):
            if isinstance(other, str) and other in around:
                message = f"Task {name} waits for {other}, the group that it is in."
                yield field_error(f"tasks[{position}].upstream[{number}]", message, "cycle")


def _around(known: Mapping[str, _Group], group: str | None) -> Iterator[str]:
    """A group and those that it is in."""
    while group is not None:
        yield group
        group = known[group].parent


def _prefix(identifier: str, known: Mapping[str, _Group]) -> str | None:
    """The group with the longest id that is a prefix."""
    while "." in identifier:
        identifier = identifier.rpartition(".")[0]
        if identifier in known:
            return identifier
    return None


def _place(known: Mapping[str, _Group], owners: Mapping[str, Any], tasks: list[_Task]) -> list[FieldError]:
    """Find the parents and members of the groups."""
    errors = []
    positions = {name: position for position, name in enumerate(known)}
    for name, group in known.items():
        group.parent = group.parent or _prefix(name, known)
        if group.parent is not None and group.parent not in known:
            message = f"Group {name} is in {group.parent}, which does not exist.{did_you_mean(group.parent, known)}"
            errors.append(field_error(f"groups[{positions[name]}].parent", message, "unknown_group"))
            group.parent = None
    for name, group in known.items():
        seen, above = {name}, group.parent
        while above is not None and above not in seen:
            seen.add(above)
            above = known[above].parent
        if above is not None:
            message = f"Group {name} is inside itself: {' → '.join(sorted(seen))}."
            return [field_error(f"groups[{positions[name]}].parent", message, "cycle")]
    for position, task in enumerate(tasks):
        owner = owners[task.id]
        if owner is not None and owner not in known:
            message = f"Task {task.id} is in the group {owner}, which does not exist.{did_you_mean(str(owner), known)}"
            errors.append(field_error(f"tasks[{position}].group", message, "unknown_group"))
            continue
        while owner is not None:
            known[owner].members.append(task.id)
            owner = known[owner].parent
    errors += [
        field_error(f"groups[{positions[name]}]", f"Group {name} has no tasks; remove it.", "empty")
        for name, group in known.items()
        if not group.members and not errors
    ]
    return errors


class _Edges:
    """Which tasks a group begins and ends with."""

    def __init__(self, groups: Mapping[str, _Group], tasks: Mapping[str, _Task], owners: Mapping[str, Any]) -> None:
        self.groups, self.tasks, self.owners = groups, tasks, owners
        self._firsts: dict[str, frozenset[str]] = {}
        self._lasts: dict[str, list[str]] = {}

    def _before(self, task: str) -> set[str]:
        """Every task or member of a group that the task, or a group that it is in, names."""
        found: set[str] = set()
        own = self.tasks[task]
        names = [*own.upstream, *own.implied]
        owner = self.owners[task]
        while owner is not None:
            names += self.groups[owner].upstream
            owner = self.groups[owner].parent
        for name in names:
            found.update(self.groups[name].members if name in self.groups else (name,))
        return found

    def firsts(self, group: str) -> frozenset[str]:
        """Its tasks that wait for none of its tasks."""
        if group not in self._firsts:
            members = set(self.groups[group].members)
            self._firsts[group] = frozenset(
                name for name in members if not self.tasks[name].teardown and not self._before(name) & members
            )
        return self._firsts[group]

    def lasts(self, group: str) -> list[str]:
        """Its tasks that none of its tasks waits for, teardowns aside; setups only if there is nothing else."""
        if group not in self._lasts:
            work = [name for name in self.groups[group].members if not self.tasks[name].teardown]
            waited = set().union(*(self._before(name) for name in work)) if work else set()
            lasts = [name for name in work if name not in waited]
            self._lasts[group] = [name for name in lasts if not self.tasks[name].raw.get("setup")] or lasts
        return self._lasts[group]

    def written(self, raw: Any) -> Any:
        """A task with edges to tasks only, and the group that it is in."""
        if not isinstance(raw, Mapping) or raw.get("id") not in self.tasks:
            return raw
        task = self.tasks[raw["id"]]
        upstream = raw.get("upstream")
        if upstream is not None and (not isinstance(upstream, list) or len(task.upstream) < len(upstream)):
            return raw
        names = list(task.upstream)
        owner = self.owners[task.id]
        while owner is not None:
            if task.id in self.firsts(owner):
                names += self.groups[owner].upstream
            owner = self.groups[owner].parent
        edges: dict[str, None] = {}
        for name in names:
            edges.update(dict.fromkeys(self.lasts(name) if name in self.groups else (name,)))
        changed: dict[str, Any] = {**raw, "upstream": list(edges)}
        if self.owners[task.id] is not None:
            changed["group"] = self.owners[task.id]
        return changed
