"""A definition as a person would write it: YAML, JSON, or Python with the SDK. Read back it is the same version."""

import ast
import json
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

import rmctl
from rmctl.spec.editor import SAID_BY
from rmctl.spec.kinds import Approval, TriggerRun, WaitForRun
from rmctl.spec.mapping import KINDS, MapSpec, sources
from rmctl.spec.workflow import WorkflowSpec

from .kinds import _run_wait
from .options import OPTIONS

SCHEMA_LINE = "# yaml-language-server: $schema={url}/schemas/workflow.json\n"
FORMATS = ("yaml", "json", "python")
WIDTH = 100
# Of instances of a mapped task, unless it says otherwise.
LIMIT = MapSpec.model_fields["limit"].default


def exported(definition: Mapping[str, Any], form: str, url: str = "") -> str:
    """A canonical definition in one of FORMATS; `url` is the portal, for the schema that editors load."""
    if form == "yaml":
        return (SCHEMA_LINE.format(url=url) if url else "") + as_yaml(definition)
    if form == "json":
        return json.dumps(definition, indent=2, ensure_ascii=False) + "\n"
    return _Python(definition).source()


# YAML


class _Dumper(yaml.SafeDumper):
    """SafeDumper with blocks for texts of several lines, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Line breaks of Unicode, which the emitter would leave as they are and the reader then folds.
_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.search(text) else "|" if "\n" in text.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(definition: Mapping[str, Any]) -> str:
    """The definition as YAML: defaults left out, tasks and groups by their ids."""
    data = _told(definition)
    data["tasks"] = {task["id"]: _yaml_task(task) for task in definition["tasks"]}
    if "groups" in definition:
        data["groups"] = {g["id"]: {k: v for k, v in g.items() if k != "id"} for g in definition["groups"]}
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


def _told(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the workflow that say something."""
    fields = WorkflowSpec.model_fields
    told = {}
    for name, value in definition.items():
        default = fields[name].get_default(call_default_factory=True) if name in fields else None
        if value not in (default, {}, []) and name not in ("schema", "tasks", "groups"):
            told[name] = value
    return {"name": definition["name"], **told}


def _yaml_task(task: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in task.items() if name not in ("id", "upstream", "trigger_rule")}
    if made.get("map", {}).get("limit") == LIMIT:
        made["map"] = {name: value for name, value in made["map"].items() if name != "limit"}
    if SAID_BY.get(next((field for field in SAID_BY if field in task), "")) == task["kind"]:
        del made["kind"]
    if upstream := _explicit(task):
        made["upstream"] = upstream
    if task["trigger_rule"] != "all_success" and "teardown" not in task:
        made["trigger_rule"] = task["trigger_rule"]
    return made


def _references(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*task.get("arguments", {}).values(), *(argument for _, argument in sources(task.get("map")))]


def _explicit(task: Mapping[str, Any]) -> list[str]:
    """The edges of a task that neither its arguments nor its setups imply."""
    implied = {reference["result"] for reference in _references(task) if "result" in reference}
    implied |= set(task.get("teardown", {}).get("setups", ()))
    return [name for name in task["upstream"] if name not in implied]


# Python


class _Python:
    """Writes the source of a DAG file."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = definition
        self.used: set[str] = {"DAG"}
        self.more: set[tuple[str, str]] = set()
        taken = {*keyword.kwlist, *rmctl.__all__, "Task", "Condition", "dag"}
        self.names = _names([task["id"] for task in definition["tasks"]], taken)
        self.groups = _names([group["id"] for group in definition.get("groups", ())], taken | {*self.names.values()})
        self.made: set[str] = set()
        self.late: list[str] = []

    def source(self) -> str:
        body = [*self._groups(), *self._tasks(), *self.late, *self._edges()]
        head = f"with DAG({self._dag()}) as dag:"
        imports = [f"from rmctl import {', '.join(sorted(self.used, key=str.lower))}"]
        imports += [f"from {module} import {name}" for module, name in sorted(self.more)]
        return "\n".join([*imports, "", head, *(f"    {line}" if line else "" for line in body)]) + "\n"

    def _dag(self) -> str:
        told = _told(self.definition)
        words = [repr(told.pop("name"))]
        if "datasets" in told:
            words.append(f"datasets={self._condition(told.pop('datasets'))}")
        words += [f"{name}={value!r}" for name, value in told.items()]
        return _call(words, "")

    def _condition(self, expression: Any) -> str:
        if isinstance(expression, str):
            self.used.add("Dataset")
            return f"Dataset({expression!r})"
        [(kind, items)] = expression.items()
        self.more.add(("rmctl.sdk.datasets", "Condition"))
        return f"Condition({kind!r}, {', '.join(self._condition(item) for item in items)})"

    def _groups(self) -> list[str]:
        lines = []
        known: set[str] = set()
        for group in self.definition.get("groups", ()):
            self.used.add("TaskGroup")
            name, parent = self.groups[group["id"]], group.get("parent")
            tooltip = f", tooltip={group['description']!r}" if group.get("description") else ""
            made = f"{name} = TaskGroup({group['id']!r}{tooltip}, prefix_group_id=False)"
            if parent in known:
                lines += [f"with {self.groups[parent]}:", f"    {made}"]
            else:
                lines.append(made)
                if parent is not None:
                    self.late.append(f"{name}.parent = {self.groups[parent]}")
            known.add(group["id"])
        return lines

    def _tasks(self) -> list[str]:
        lines: list[str] = []
        open_group = None
        for task in self.definition["tasks"]:
            group = task.get("group")
            if group is not None and group != open_group:
                lines.append(f"with {self.groups[group]}:")
            open_group = group
            setup = ".as_setup()" if task.get("setup") else ""
            line = f"{self.names[task['id']]} = {self._task(task)}{setup}"
            lines.append(f"    {line}" if group is not None else line)
            self.made.add(task["id"])
        return lines

    def _task(self, task: Mapping[str, Any]) -> str:
        """The expression that makes a task."""
        arguments = self._arguments(task)
        over = self._over(task)
        options = {name: task[name] for name in OPTIONS if name in task}
        if options["trigger_rule"] == "all_success" or "teardown" in task:
            del options["trigger_rule"]
        if task.get("map", {}).get("limit", LIMIT) != LIMIT:
            options["map_limit"] = task["map"]["limit"]
        if "label" in task.get("map", {}):
            options["map_index_template"] = task["map"]["label"]
        words = self._friendly(task, arguments, over)
        if words is None:
            self.more.add(("rmctl.sdk.dag", "Task"))
            extra = {n: v for n, v in task.items() if n not in (*_STRUCTURE, *OPTIONS)}
            words = [repr(task["id"]), repr(task["kind"]), f"options={options!r}"]
            words += [f"arguments={arguments}"] if arguments else []
            words += [f"over={over}"] if over else []
            script = {"script": extra.pop("script")} if "script" in extra else {}
            words += [f"{name}={_literal(value)}" for name, value in script.items()]
            words += [f"extra={extra!r}"] if extra else []
            return f"Task({_call(words)})"
        words += [f"{name}={value!r}" for name, value in options.items()]
        function = "deploy_service" if task["kind"] == "service" else task["kind"]
        self.used.add(function)
        return f"{function}({_call(words)})"

    def _friendly(self, task: Mapping[str, Any], arguments: str, over: str) -> list[str] | None:
        """The words of the SDK's own function for this kind, but for the options; None if it cannot say this."""
        words = [repr(task["id"])]
        expand = [f"expand={over}"] if over else []
        match task["kind"]:
            case "empty":
                return words
            case "bash" if not task.keys() & {"ignore_downstream_trigger_rules", "poke"}:
                words += [_literal(task["script"]), *([f"arguments={arguments}"] if arguments else []), *expand]
                return words + ([f"decides={task['decides']!r}"] if "decides" in task else [])
            case "python":
                words += [repr(task["file"]), repr(task["function"])]
                words += [f"arguments={arguments}"] if arguments else []
                names = ("decides", "returns", "poke", "ignore_downstream_trigger_rules")
                return words + expand + [f"{name}={task[name]!r}" for name in names if name in task]
            case "wait_until" | "wait_for":
                [value] = task["arguments"].values()
                return None if self._forward(value) else [*words, self._value(value)]
            case "trigger_run" if _same(TriggerRun, task["trigger_run"]):
                words += [repr(task["trigger_run"]["workflow"])]
                words += [*([f"params={arguments}"] if arguments else []), *expand]
                return words + [f"{n}={v!r}" for n, v in task["trigger_run"].items() if n != "workflow"]
            case "wait_for_run" if _same(WaitForRun, task["wait_for_run"]):
                given = task.get("arguments", {})
                if any(self._forward(value) for value in given.values()):
                    return None
                words += [repr(task["wait_for_run"]["workflow"])]
                words += [f"{n}={self._value(v)}" for n, v in given.items()]
                return words + [f"{n}={v!r}" for n, v in task["wait_for_run"].items() if n != "workflow"]
            case "wait_for_dataset":
                given, spec = task.get("arguments", {}), task["wait_for_dataset"]
                if any(self._forward(value) for value in given.values()) or ("since" in given and "since" in spec):
                    return None
                words += [self._condition(spec["datasets"]), *(f"{n}={self._value(v)}" for n, v in given.items())]
                return words + [f"{n}={v!r}" for n, v in spec.items() if n != "datasets"]
            case "service":
                chosen = task["service"]
                words += [repr(chosen["spec"]), *([f"arguments={arguments}"] if arguments else [])]
                return words + [f"{n}={v!r}" for n, v in chosen.items() if n != "spec"]
            case "approval" if Approval.model_validate(task["approval"]).reject == _rejecting(task["approval"]):
                words += [repr(task["approval"]["subject"]), *([f"show={arguments}"] if arguments else []), *expand]
                return words + [f"{n}={v!r}" for n, v in task["approval"].items() if n != "subject"]
        return None

    def _forward(self, argument: Mapping[str, Any]) -> bool:
        return "result" in argument and argument["result"] not in self.made

    def _arguments(self, task: Mapping[str, Any]) -> str:
        """Arguments as a dictionary; one that takes the result of a task that comes later is set when that is made."""
        now = {}
        for name, argument in task.get("arguments", {}).items():
            if self._forward(argument):
                self.late.append(f"{self.names[task['id']]}.arguments[{name!r}] = {self._value(argument)}")
            else:
                now[name] = argument
        return self._dictionary(now) if now else ""

    def _over(self, task: Mapping[str, Any]) -> str:
        """What `expand=` takes for a mapped task; set later where a list is the result of a task that comes later."""
        mapping = task.get("map", {})
        found = {field.partition(".")[2] or field: argument for field, argument in sources(mapping)}
        if not found:
            return ""
        lists = {name: found[name] for name in mapping.get("order", found)}
        if any(self._forward(argument) for argument in lists.values()):
            self.late.append(f"{self.names[task['id']]}.over = {self._exactly(mapping, lists)}")
            return ""
        if "over" in mapping:
            return self._dictionary(lists)
        if "kwargs" in mapping and "accepts" not in mapping:
            return self._value(lists["kwargs"])
        if "zip" in mapping and not any(keyword.iskeyword(name) or name == "fillvalue" for name in lists):
            self.used.add("zipped")
            words = [f"{name}={self._value(argument)}" for name, argument in lists.items()]
            words += [f"fillvalue={mapping['fill']!r}"] if "fill" in mapping else []
            return f"zipped({', '.join(words)})"
        return self._exactly(mapping, lists)

    def _exactly(self, mapping: Mapping[str, Any], lists: Mapping[str, Any]) -> str:
        """A `map` in the form that has words for all of it."""
        self.more.add(("rmctl.sdk.mapping", "Over"))
        kind = next(kind for kind in KINDS if kind in mapping)
        extra = {name: mapping[name] for name in ("fill", "accepts") if name in mapping}
        return f"Over({kind!r}, {self._dictionary(lists)}{f', {extra!r}' if extra else ''})"

    def _dictionary(self, arguments: Mapping[str, Any]) -> str:
        return f"{{{', '.join(f'{name!r}: {self._value(argument)}' for name, argument in arguments.items())}}}"

    def _value(self, argument: Mapping[str, Any]) -> str:
        if "param" in argument:
            self.used.add("param")
            return f"param({argument['param']!r})"
        if "result" in argument:
            key = argument.get("key")
            return self.names[argument["result"]] + ("" if key is None else f"[{key!r}]")
        return repr(argument.get("value"))

    def _edges(self) -> list[str]:
        lines = []
        for task in self.definition["tasks"]:
            name = self.names[task["id"]]
            if "teardown" in task:
                setups = ", ".join(self.names[other] for other in task["teardown"].get("setups", ()))
                fails = ", on_failure_fail_dagrun=True" if task["teardown"].get("fails_run") else ""
                lines.append(f"{name}.as_teardown(setups=[{setups}]{fails})")
            before = [self.names[other] for other in _explicit(task)]
            if before:
                lines.append(f"{before[0] if len(before) == 1 else '[' + ', '.join(before) + ']'} >> {name}")
        return lines


# Fields of a task that are no options and no part of its kind.
_STRUCTURE = ("id", "kind", "upstream", "arguments", "map", "group", "setup", "teardown", "trigger_rule")


def _names(ids: Iterable[str], taken: set[str]) -> dict[str, str]:
    """A Python name for each id."""
    found: dict[str, str] = {}
    used = set(taken)
    for identifier in ids:
        name = re.sub(r"\W", "_", identifier, flags=re.ASCII)
        while name in used:
            name += "_"
        used.add(name)
        found[identifier] = name
    return found


def _same(model: type[TriggerRun | WaitForRun], given: Mapping[str, Any]) -> bool:
    """Whether the SDK's function says the same, which takes the good ends from the bad ones by itself."""
    parsed = model.model_validate(given)
    said = _run_wait(parsed.workflow, parsed.allowed, parsed.failed, parsed.timeout, parsed.soft_fail)
    return bool(said["failed"] == parsed.failed)


def _rejecting(given: Mapping[str, Any]) -> list[str]:
    """What the SDK takes for the options that reject."""
    options = given.get("options", ["approve", "reject"])
    rejecting: list[str] = given.get("reject", [option for option in ("reject",) if option in options])
    return rejecting


def _literal(text: str) -> str:
    """A text as Python source: over several lines where it has some."""
    block = f'"""\\\n{text}"""'
    try:
        if "\n" in text and text.isprintable() is False and ast.literal_eval(block) == text:
            return block
    except (SyntaxError, ValueError):
        pass
    return repr(text)


def _call(words: list[str], indent: str = "    ") -> str:
    """The words of a call, one to a line where they are too long for one."""
    line = ", ".join(words)
    if len(line) <= WIDTH - 20 or len(words) < 3:
        return line
    return "\n" + "".join(f"{indent}    {word},\n" for word in words) + indent
