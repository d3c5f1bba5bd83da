"""How the tasks of a definition use functions and results: against what the functions say of themselves.

Only what both sides say is compared, so that what is reported really is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmctl.spec import FieldError
from rmctl.spec.errors import describe, did_you_mean, field_error
from rmctl.spec.mapping import sources

from .annotations import (
    UNKNOWN,
    Annotated,
    Function,
    Shape,
    array_of,
    items_of,
    meets,
    of_schema,
    picked,
    shape_of,
    source_of,
)


@dataclass(frozen=True, slots=True)
class _Given:
    """An argument as the task gets it: what it may be, in words, and a fault of its own if it can be nothing."""

    shape: Shape | None
    words: str
    fault: str = ""


class Usage:
    """The Python tasks of a definition (which may have faults) with their functions; `shipped` are the files."""

    def __init__(self, definition: Mapping[str, Any], shipped: Mapping[str, Path]) -> None:
        tasks = definition.get("tasks")
        self.tasks = [task if isinstance(task, Mapping) else {} for task in tasks] if isinstance(tasks, list) else []
        params = definition.get("params")
        properties = params.get("properties") if isinstance(params, Mapping) else None
        self.params: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
        self.functions: dict[str, Function] = {}
        self.missing: list[FieldError] = []
        for position, task in enumerate(self.tasks):
            self._find(position, task, shipped)
        self.by_id = {task["id"]: task for task in self.tasks if isinstance(task.get("id"), str)}

    def _find(self, position: int, task: Mapping[str, Any], shipped: Mapping[str, Path]) -> None:
        file, name, identifier = task.get("file"), task.get("function"), task.get("id")
        if not isinstance(file, str) or not isinstance(name, str) or not isinstance(identifier, str):
            return
        if file not in shipped:
            return
        source = source_of(shipped[file])
        if name in source.functions:
            self.functions[identifier] = source.functions[name]
        elif source.names is not None and name not in source.names:
            message = f"{file} has no function {name}.{did_you_mean(name, source.names)}"
            self.missing.append(field_error(f"tasks[{position}].function", message, "unknown_function"))

    def faults(self) -> list[FieldError]:
        """Functions that are not there, and arguments that they do not take, miss, or cannot use."""
        found = list(self.missing)
        for position, task in enumerate(self.tasks):
            function = self.functions.get(task.get("id", ""))
            if function is not None:
                found += self._arguments(f"tasks[{position}]", task, function)
        return found

    def _arguments(self, where: str, task: Mapping[str, Any], function: Function) -> Iterator[FieldError]:
        arguments, mapping = _objects(task.get("arguments")), _objects(task.get("map"))
        lists = {field: argument for field, argument in sources(mapping) if field != "kwargs"}
        rows = self._rows(mapping.get("kwargs"))
        # By field of the task: the name of the argument, what it is given, and whether that is mapped over.
        found = {f"arguments.{name}": (name, self._given(given), False) for name, given in arguments.items()}
        found |= {f"map.{field}": (field.partition(".")[2], self._given(given), True) for field, given in lists.items()}
        sets = {"arguments": {name for name, *_ in found.values()}} if "kwargs" not in mapping else {}
        for place, row in rows.items():
            sets[place] = {*arguments, *row}
            found |= {f"{place}.{n}": (n, _Given(shape_of(v), describe(v)), False) for n, v in row.items()}
        for place, names in sets.items():
            if missing := sorted(function.required - names):
                message = f"{task['function']} must be given {', '.join(missing)}."
                yield field_error(f"{where}.{place}", message, "required")
        for place, (name, given, mapped) in found.items():
            fault = self._fault(task, function, name, given, mapped=mapped)
            if fault is not None:
                yield field_error(f"{where}.{place}", *fault)
        if "kwargs" in mapping and not rows:
            given = self._given(mapping["kwargs"])
            if message := given.fault or _no_rows(task, given):
                yield field_error(f"{where}.map.kwargs", message, "wrong_result" if given.fault else "wrong_type")

    @staticmethod
    def _rows(argument: Any) -> dict[str, Mapping[str, Any]]:
        """The objects of literal `kwargs` by their fields."""
        value = argument.get("value") if isinstance(argument, Mapping) else None
        rows = enumerate(value if isinstance(value, list) else ())
        return {f"map.kwargs.value[{index}]": row for index, row in rows if isinstance(row, Mapping)}

    def _fault(
        self, task: Mapping[str, Any], function: Function, name: str, given: _Given, *, mapped: bool
    ) -> tuple[str, str] | None:
        """(what is wrong with an argument, its code)."""
        if name not in function.parameters and not function.open:
            known = ", ".join(function.parameters) or "none"
            return f"{task['function']} has no argument {name}; it takes {known}.", "unknown_argument"
        if given.fault:
            return given.fault, "wrong_result"
        message = self._misfit(task, name, given, function.parameters.get(name, UNKNOWN), mapped=mapped)
        return (message, "wrong_type") if message else None

    def _misfit(
        self, task: Mapping[str, Any], name: str, given: _Given, wanted: Annotated, *, mapped: bool
    ) -> str:
        """What is wrong with an argument, or nothing."""
        shape = given.shape
        if mapped:
            shape, possible = items_of(shape)
            if not possible:
                return f"{task['function']} is mapped over {name}, which must be a list, not {given.words}."
        if meets(shape, wanted.shape):
            return ""
        given_as = "is mapped over" if mapped else "is given"
        return f"{task['function']} takes {name} as {wanted.text}, but {given_as} {given.words}."

    def _given(self, argument: Any) -> _Given:
        if not isinstance(argument, Mapping):
            return _Given(None, "")
        if "value" in argument:
            value = argument["value"]
            return _Given(shape_of(value), describe(value))
        if "param" in argument:
            schema = self.params.get(argument["param"])
            shape = of_schema(schema) if isinstance(schema, Mapping) else None
            return _Given(shape, f"the parameter {argument['param']} ({_types(schema)})")
        return self._result(argument)

    def _result(self, argument: Mapping[str, Any]) -> _Given:
        name, key = argument.get("result"), argument.get("key")
        task = self.by_id.get(name) if isinstance(name, str) else None
        function = self.functions.get(name) if isinstance(name, str) else None
        if task is None or function is None or task.keys() & {"poke", "decides", "returns"}:
            return _Given(None, "")
        shape, words = function.returns.shape, f"the result of {name} ({function.returns.text})"
        if task.get("map"):
            shape, words = array_of(shape), f"the results of {name} (a list of {function.returns.text})"
        if isinstance(key, str | int):
            part, possible = picked(shape, key)
            if not possible:
                return _Given(None, "", f"The result of {name} is {function.returns.text}, which has no part {key!r}.")
            shape, words = part, f"{key!r} of {words}"
        return _Given(shape, words)

    def branches(self, below: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]) -> dict[str, "Branch"]:
        """The branches whose choices are known; `below` are the tasks directly behind each, `groups` their tasks."""
        found = {}
        for task in self.tasks:
            function = self.functions.get(task.get("id", ""))
            if function is not None and task.get("decides") == "branch":
                made = Branch.of(function, below[task["id"]], groups)
                if made is not None:
                    found[task["id"]] = made
        return found


@dataclass(frozen=True, slots=True)
class Branch:
    """The sets of tasks that a branch can choose, and the ids it returns that are not behind it, by line."""

    ways: list[frozenset[str]]
    wrong: list[tuple[int, str]]

    @classmethod
    def of(cls, function: Function, below: Sequence[str], groups: Mapping[str, Sequence[str]]) -> "Branch | None":
        """From what it returns literally, or from its annotation when that allows only one id; None if neither."""
        members = {name: frozenset({name}) for name in below}
        members |= {name: inside for name, tasks in groups.items() if (inside := frozenset(tasks) & frozenset(below))}
        if function.choices is None:
            shape = function.returns.shape
            single = shape is not None and {kind.name for kind in shape} <= {"string", "null"}
            return cls([*members.values(), frozenset()], []) if single else None
        ways = [frozenset().union(*(members.get(name, frozenset()) for name in ids)) for _, ids in function.choices]
        wrong = [(line, name) for line, ids in function.choices for name in sorted(ids) if name not in members]
        return cls(ways, wrong)


def _no_rows(task: Mapping[str, Any], given: _Given) -> str:
    """What is wrong with a value as the list of objects that a task is mapped over, or nothing."""
    shape, possible = items_of(given.shape)
    if possible and (shape is None or any(kind.name == "object" for kind in shape)):
        return ""
    return f"{task['function']} is mapped over objects of arguments, which must be a list of them, not {given.words}."


def _objects(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _types(schema: Any) -> str:
    names = schema.get("type") if isinstance(schema, Mapping) else None
    return " or ".join(names) if isinstance(names, list) else str(names)
