"""Templates of a task: which of its texts are some, whether they can be read, and what they need.

A text with `{{` or `{%` is a Jinja template. Here it is only parsed: nothing of it runs, not even the folding of
constants, which could be as slow as an author likes. It is rendered by `rmctl.render`, in the task's own process and
under the task's own limits. What a template needs (results of other tasks, variables, connections) is found in its
syntax tree, so these are named literally.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import FieldError, did_you_mean, field_error
from .kinds import JOBLESS

if TYPE_CHECKING:
    from jinja2 import nodes

MARK = re.compile(r"\{\{|\{%")
MAX_CHARACTERS = 256 * 1024
# Under which key of a job's inputs the values for its templates are; no argument can have this name.
KEY = "rm:template"
# The exit status of a task whose template could not be rendered.
STATUS = 78

NAMES = frozenset(
    {
        "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "logical_date", "logical_time", "execution_date",
        "data_interval_start", "data_interval_end", "yesterday_ds", "yesterday_ds_nodash", "tomorrow_ds",
        "tomorrow_ds_nodash", "params", "run_id", "dag", "dag_run", "task", "ti", "task_instance", "var", "conn",
        "macros", "triggering_dataset_events", "triggering_asset_events",
        # Jinja's own.
        "range", "dict", "lipsum", "cycler", "joiner", "namespace", "loop", "self", "varargs", "kwargs", "caller",
    }
)  # fmt: skip
FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")


@dataclass(frozen=True, slots=True)
class Needs:
    """What the templates of a task read; `results` are ids of tasks, the others names of the tenant's."""

    results: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    # Those that have a default in the template, and so may be missing.
    optional: frozenset[str] = frozenset()
    connections: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    # Whether the events of datasets that triggered the run are read.
    events: bool = False
    # Names and attributes that they read of whatever there is.
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TaskTemplates:
    """The templates of one task: whether its script is one, and which variables and arguments are."""

    script: bool
    env: tuple[str, ...]
    arguments: tuple[str, ...]
    needs: Needs
    # What is wrong with them; fields are within the task.
    faults: tuple[FieldError, ...] = ()

    def inputs(self, results: Mapping[str, Any], params: Mapping[str, Any], *, bash: bool) -> dict[str, Any]:
        """What `rmctl.render` is told, as the entry KEY of a job's inputs."""
        return {
            "script": self.script, "env": self.env, "arguments": self.arguments, "bash": bash,
            "results": {name: results.get(name) for name in sorted(self.needs.results)}, "params": params,
        }  # fmt: skip


@dataclass(slots=True)
class _Reading:
    """What was found in the templates read so far."""

    results: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    connections: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    events: bool = False
    names: set[str] = field(default_factory=set)
    faults: list[tuple[str, str, str]] = field(default_factory=list)


def texts(value: Any) -> Iterator[str]:
    """The templates in a value and in the lists and objects in it."""
    if isinstance(value, str):
        if MARK.search(value):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)


def templates_of(task: Mapping[str, Any], env: Mapping[str, str]) -> TaskTemplates | None:
    """The templates of a task of a definition, whose variables are `env`.

    None where it has no template, says `template: false`, or has no job.
    """
    if task["kind"] in JOBLESS or not task.get("template", True):
        return None
    arguments = task.get("arguments") or {}
    places = [("script", task.get("script"))]
    places += [(f"env.{name}", value) for name, value in env.items()]
    places += [(f"arguments.{name}", a["value"]) for name, a in arguments.items() if "value" in a]
    found = [(where, list(texts(value))) for where, value in places]
    found = [(where, some) for where, some in found if some]
    if not found:
        return None
    reading = _Reading()
    for where, some in found:
        for text in some:
            _read(where, text, reading)
    names = [where for where, _ in found]
    return TaskTemplates(
        script="script" in names,
        env=tuple(name.removeprefix("env.") for name in names if name.startswith("env.")),
        arguments=tuple(name.removeprefix("arguments.") for name in names if name.startswith("arguments.")),
        needs=Needs(
            frozenset(reading.results), frozenset(reading.variables), frozenset(reading.optional),
            frozenset(reading.connections), frozenset(reading.parameters), reading.events,
            frozenset(reading.names),
        ),
        faults=tuple(field_error(*fault) for fault in reading.faults),
    )  # fmt: skip


def template_faults(definition: Mapping[str, Any], templates: Mapping[str, TaskTemplates]) -> list[FieldError]:
    """What is wrong with the templates of a canonical definition, given by task: on their own, and with what they read
    of other tasks and of the run."""
    errors = []
    upstream = {task["id"]: task["upstream"] for task in definition["tasks"]}
    declared = definition["params"].get("properties", {})
    for index, task in enumerate(definition["tasks"]):
        found = templates.get(task["id"])
        if found is None:
            continue
        where = f"tasks[{index}]"
        errors += [field_error(f"{where}.{e['field']}", e["message"], e["code"]) for e in found.faults]
        if task.get("image") or definition["defaults"].get("image"):
            message = "A template is rendered by the node's own Python, which an image does not have: template: false."
            errors.append(field_error(where, message, "wrong_kind"))
        before = _before(task["id"], upstream) if found.needs.results else set()
        for name in sorted(found.needs.results - before):
            if name in upstream:
                message = (
                    f"xcom_pull reads the result of {name}, which does not come before {task['id']}: "
                    "add it to upstream."
                )
                errors.append(field_error(where, message, "not_upstream"))
            else:
                message = f"xcom_pull: there is no task {name}.{did_you_mean(name, upstream)}"
                errors.append(field_error(where, message, "unknown_task"))
        errors += _unknown_parameters(where, found, declared)
    return errors


def faults_beside_others(data: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with the templates of a definition that has other faults as well and may have any shape: those of
    their own, and parameters that are not there."""
    tasks, defaults, params = (data.get(name) for name in ("tasks", "defaults", "params"))
    properties = params.get("properties") if isinstance(params, Mapping) else None
    declared = _object(properties)
    errors = []
    for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if not isinstance(task, Mapping) or not isinstance(task.get("kind"), str):
            continue
        env = {**_object(_object(defaults).get("env")), **_object(task.get("env"))}
        arguments = {name: one for name, one in _object(task.get("arguments")).items() if isinstance(one, Mapping)}
        found = templates_of({**task, "arguments": arguments}, env)
        if found is None:
            continue
        where = f"tasks[{index}]"
        errors += [field_error(f"{where}.{e['field']}", e["message"], e["code"]) for e in found.faults]
        errors += _unknown_parameters(where, found, declared)
    return errors


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _unknown_parameters(where: str, found: TaskTemplates, declared: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in sorted(found.needs.parameters - declared.keys()):
        message = f"params.{name}: the workflow has no such parameter.{did_you_mean(name, declared)}"
        yield field_error(where, message, "unknown_param")


def _before(task: str, upstream: Mapping[str, list[str]]) -> set[str]:
    """Every task that has ended, one way or another, before this one begins."""
    found: set[str] = set()
    waiting = list(upstream[task])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += upstream.get(name, [])
    return found


def _read(where: str, text: str, reading: _Reading) -> None:
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import SandboxedEnvironment

    def fault(line: int, message: str, code: str) -> None:
        reading.faults.append((where, f"line {line}, column {_column(environment, text, line)}: {message}", code))

    environment = SandboxedEnvironment()
    if len(text) > MAX_CHARACTERS:
        message = f"A template has at most {MAX_CHARACTERS // 1024} Ki characters; move the rest into a file."
        reading.faults.append((where, message, "too_large"))
        return
    try:
        tree = environment.parse(text)
    except TemplateSyntaxError as error:
        hint = ' Write "{{ \'{#\' }}" for a {# of bash.' if "comment" in str(error.message) else ""
        said = str(error.message).rstrip(".")
        fault(error.lineno, f"{said}.{hint} With template: false the text stays as it is.", "bad_template")
        return
    except RecursionError:
        reading.faults.append((where, "The template is nested too deeply.", "bad_template"))
        return
    _Walk(reading, fault, {*environment.filters, *FILTERS}).walk(tree)


def _column(environment: Any, text: str, line: int) -> int:
    """Where on the line the faulty tag begins: Jinja itself says only the line."""
    from jinja2 import TemplateSyntaxError

    content = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
    tags = [match.start() for match in MARK.finditer(content)]
    for start, end in zip(tags, [*tags[1:], len(content)], strict=True):
        if content.startswith("{{", start):
            try:
                environment.parse(content[start:end])
            except TemplateSyntaxError:
                return start + 1
    return (tags[0] if tags else 0) + 1


class _Walk:
    """Goes through a syntax tree and notes what it reads, and what is not there to be read."""

    def __init__(self, reading: _Reading, fault: Any, filters: set[str]) -> None:
        self.reading, self.fault, self.filters = reading, fault, filters

    def walk(self, tree: "nodes.Template") -> None:
        from jinja2 import nodes

        for banned in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            self.fault(banned.lineno, "a template of a task stands alone: no include, import, extends.", "bad_template")
        own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
        own |= {macro.name for macro in tree.find_all(nodes.Macro)}
        guarded = set()
        for node in tree.find_all((nodes.Filter, nodes.Test)):
            if isinstance(node, nodes.Filter) and node.name not in self.filters:
                hint = did_you_mean(node.name, self.filters)
                self.fault(node.lineno, f"there is no filter {node.name}.{hint}", "unknown_name")
            if node.name in ("default", "d", "defined", "undefined") and node.node is not None:
                guarded.add(id(node.node))
        for name in tree.find_all(nodes.Name):
            self.reading.events |= name.name in ("triggering_dataset_events", "triggering_asset_events")
            if name.ctx == "load" and name.name not in NAMES | own and id(name) not in guarded:
                hint = did_you_mean(name.name, NAMES)
                self.fault(name.lineno, f"there is no {name.name} here.{hint}", "unknown_name")
        self.reading.names |= {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"} - own
        for part in tree.find_all((nodes.Getattr, nodes.Getitem)):
            name = _key(part) or ""
            self.reading.names.add(f"macros.{name}" if _is_name(part.node, "macros") else name)
        for call in tree.find_all(nodes.Call):
            self._call(call)
        self._reads(tree, guarded)

    def _reads(self, tree: "nodes.Template", guarded: set[int]) -> None:
        """`params.x`, `conn.x`, `var.value.x` and `var.json.x`, also with `[…]`."""
        from jinja2 import nodes

        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            name = _key(node)
            inner = node.node
            if isinstance(inner, nodes.Name) and inner.name in ("params", "conn"):
                if name is None:
                    if inner.name == "conn":
                        self.fault(node.lineno, "name the connection literally.", "not_literal")
                elif inner.name == "params":
                    if id(node) not in guarded and name not in _METHODS:
                        self.reading.parameters.add(name)
                elif name != "get":
                    self.reading.connections.add(name)
            elif _is_variables(inner) and name != "get":
                if name is None:
                    self.fault(node.lineno, "name the variable literally.", "not_literal")
                elif id(node) in guarded:
                    self.reading.optional.add(name)
                else:
                    self.reading.variables.add(name)

    def _call(self, call: "nodes.Call") -> None:
        from jinja2 import nodes

        target = call.node
        if not isinstance(target, nodes.Getattr):
            return
        owner = target.node
        if target.attr == "xcom_pull" and isinstance(owner, nodes.Name) and owner.name in ("ti", "task_instance"):
            given = {keyword.key: keyword.value for keyword in call.kwargs}
            tasks = call.args[0] if call.args else given.get("task_ids")
            names = _literal(tasks)
            if names is None:
                message = 'give task_ids literally, for example ti.xcom_pull(task_ids="extract").'
                self.fault(call.lineno, message, "not_literal")
            else:
                self.reading.results.update(names)
        elif target.attr == "get" and (_is_variables(owner) or _is_name(owner, "conn")):
            names = _literal(call.args[0] if call.args else None)
            if names is None:
                self.fault(call.lineno, "give the name literally.", "not_literal")
            elif _is_name(owner, "conn"):
                self.reading.connections.update(names)
            elif len(call.args) > 1 or call.kwargs:
                self.reading.optional.update(names)
            else:
                self.reading.variables.update(names)


_METHODS = ("get", "items", "keys", "values")


def _is_name(node: Any, name: str) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == name


def _is_variables(node: Any) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Getattr) and node.attr in ("value", "json") and _is_name(node.node, "var")


def _key(node: Any) -> str | None:
    """The name that an access gives literally."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return str(node.attr)
    return str(node.arg.value) if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None


def _literal(node: Any) -> list[str] | None:
    """One text or a list of them, where the template has it as such."""
    from jinja2 import nodes

    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, nodes.List | nodes.Tuple):
        values = [item.value for item in node.items if isinstance(item, nodes.Const) and isinstance(item.value, str)]
        return values if len(values) == len(node.items) else None
    return None
