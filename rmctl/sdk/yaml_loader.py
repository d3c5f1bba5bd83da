"""Workflows written in YAML: the fields of the JSON definition, a little friendlier.

Tasks may be a mapping id → task; a task with `script` is of kind bash, one with `function` of kind python, and one with
`wait_until`, `wait_for`, `wait_for_run`, `wait_for_dataset`, `trigger_run`, `approval` or `service` of that kind.
Groups may be a mapping id → group.
Beside the definition's fields there is `files`: globs of what the bundle ships.
"""

import json
from collections.abc import Callable, Hashable
from datetime import date
from typing import Any

import yaml

from .options import SdkError

MAX_BYTES = 4 * 2**20
MAX_VALUES = 500_000
MAX_DEPTH = 60


class YamlError(SdkError):
    """The text is not usable YAML; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {message}", line)
        self.column = column


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what it would silently overwrite: a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key == "on":
                # A field of `notify`, which YAML 1.1 reads as true.
                key_node.tag = "tag:yaml.org,2002:str"
            if key in seen and key != "<<":
                mark = key_node.start_mark
                raise YamlError(f'"{key}" is given twice; keep one.', mark.line + 1, mark.column + 1)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str | bytes) -> Any:
    """YAML text as JSON data; dates become ISO text. Raises YamlError with line and column."""
    if len(text) > MAX_BYTES:
        raise YamlError(
            f"The file has {len(text) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read."
        )
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "cannot be read"
        if "'@'" in problem or "'`'" in problem:
            problem += '; put the value in quotes, for example "@daily"'
        raise YamlError(f"{problem}.", *((mark.line + 1, mark.column + 1) if mark else ())) from None
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        raise YamlError(
            f"there is a character that text cannot have: {error.reason}.", line, column
        ) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, YamlError):
            raise
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise YamlError(f"{why}.") from None
    return _plain(data, [MAX_VALUES], 0)


def _place(text: str | bytes, position: int) -> tuple[int, int]:
    before = text[:position] if isinstance(text, bytes) else text[:position].encode(errors="replace")
    return before.count(b"\n") + 1, position - (before.rfind(b"\n") + 1) + 1


def _plain(value: Any, left: list[int], depth: int) -> Any:
    """A copy without shared parts. Aliases can make a small text huge or endless: both have a limit."""
    left[0] -= 1
    if left[0] < 0:
        raise YamlError(f"more than {MAX_VALUES} values once its aliases are followed.")
    if depth > MAX_DEPTH:
        raise YamlError(f"nested more than {MAX_DEPTH} levels, or an alias that contains itself.")
    if isinstance(value, dict):
        return {_key(key): _plain(item, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, left, depth + 1) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes | set):
        raise YamlError("!!binary and !!set cannot be kept as JSON; give text or a list.")
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        raise YamlError(f"a key is read as {str(key).lower()} (off, yes and no are); put it in quotes.")
    if not isinstance(key, str):
        raise YamlError(f'the key {key} is not text; write "{key}".')
    return key


def parse_json(text: str | bytes) -> Any:
    """JSON text as JSON data, which YAML would read otherwise here and there. Raises YamlError."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"The file has {len(text) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read.")
    try:
        return _plain(json.loads(text), [MAX_VALUES], 0)
    except json.JSONDecodeError as error:
        raise YamlError(f"{error.msg}.", error.lineno, error.colno) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise YamlError(f"cannot be read as JSON: {error}.") from None


def workflow(text: str | bytes, read: Callable[[str | bytes], Any] = parse) -> tuple[dict[str, Any], list[str]]:
    """(definition as JSON data, file globs). Raises YamlError; checks of fields are `parse_workflow`'s."""
    data = read(text)
    if not isinstance(data, dict):
        raise YamlError("a workflow is a mapping with name and tasks.")
    files = data.pop("files", [])
    if not isinstance(files, list) or not all(isinstance(pattern, str) for pattern in files):
        raise YamlError("files must be a list of globs.")
    groups = data.get("groups")
    if isinstance(groups, dict):
        data["groups"] = [{"id": name, **(group or {})} for name, group in groups.items() if _is_mapping(name, group)]
    tasks = data.get("tasks")
    if isinstance(tasks, dict):
        for name, task in tasks.items():
            if task is not None and not isinstance(task, dict):
                raise YamlError(f"task {name} must be a mapping, for example {{script: 'echo hello'}}.")
            if task and "id" in task and task["id"] != name:
                raise YamlError(f"task {name} also has the id {task['id']}; remove it.")
        tasks = [{"id": name, **(task or {})} for name, task in tasks.items()]
    if isinstance(tasks, list):
        tasks = [_with_kind(task) for task in tasks]
        data["tasks"] = tasks
    return data, files


def _is_mapping(name: str, group: Any) -> bool:
    if group is not None and not isinstance(group, dict):
        raise YamlError(f"group {name} must be a mapping, for example {{description: 'what it does'}}.")
    return True


def _with_kind(task: Any) -> Any:
    if not isinstance(task, dict) or "kind" in task:
        return task
    for field, kind in (("script", "bash"), ("function", "python")):
        if field in task:
            return {**task, "kind": kind}
    for kind, argument in (("wait_until", "time"), ("wait_for", "duration")):
        if kind in task:
            value = task[kind] if isinstance(task[kind], dict) else {"value": task[kind]}
            rest = {name: field for name, field in task.items() if name != kind}
            return {**rest, "kind": kind, "arguments": {argument: value}}
    for kind in ("wait_for_run", "wait_for_dataset", "trigger_run", "approval", "service"):
        if kind in task:
            return {**task, "kind": kind}
    return task
