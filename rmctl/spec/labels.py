"""Names of the instances of a mapped task: a text with `{{ … }}` that looks up what tells an instance from the others.

Only look-ups, in Jinja's spelling: names, `.x` and `[…]`, `~`, and a few filters. Jinja parses it, nothing of Jinja
runs: what a name costs is bounded by its length, so that the portal may work it out for thousands of instances as they
begin (docs/decisions/0009), also for those that have no process of their own.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from .errors import BadValue, FieldError, did_you_mean, field_error

if TYPE_CHECKING:
    from jinja2 import nodes

TEMPLATE_CHARACTERS = 500
# A longer name is cut, and of longer texts and lists only so much is looked at.
LABEL_CHARACTERS = 200
_LOOKED_AT = 1000
# What there is besides the arguments of the instance.
NAMES = ("params", "task", "ti", "task_instance", "map_index")
_OF_INSTANCE = ("map_index", "task_id")


class LabelError(ValueError):
    """An instance has no such name; the message says what was missing."""


def check_label(text: str) -> str:
    """The text as it is. Raises BadValue for what is not made of look-ups."""
    _parsed(text)
    return text


def label_faults(definition: Mapping[str, Any]) -> list[FieldError]:
    """Names that the labels of a canonical definition read and that are not there."""
    faults = []
    declared = definition["params"].get("properties", {})
    for position, task in enumerate(definition["tasks"]):
        mapping = task.get("map", {})
        if "label" in mapping:
            own = {*task.get("arguments", ()), *mapping.get("over", ()), *mapping.get("zip", ())}
            found = missing(mapping["label"], own, declared, more="kwargs" in mapping)
            faults += [field_error(f"tasks[{position}].map.label", text, code) for text, code in found]
    return faults


def missing(
    text: str, own: Collection[str], declared: Collection[str], *, more: bool = False
) -> Iterator[tuple[str, str]]:
    """(what is wrong, code) for each name that a label reads and that is not there; `own` are the arguments of the
    task, to which instances may have `more`, `declared` the parameters of the workflow. Raises BadValue."""
    from jinja2 import nodes

    tree, known = _parsed(text), {*own, *NAMES}
    for name in sorted({name.name for name in tree.find_all(nodes.Name)} - known if not more else ()):
        message = f"there is no {name} here, only the task's arguments, {', '.join(NAMES)}."
        yield message + did_you_mean(name, known), "unknown_name"
    there = {"params": declared, "task": ("op_kwargs", "task_id"), "ti": _OF_INSTANCE, "task_instance": _OF_INSTANCE}
    for part in tree.find_all(nodes.Getattr):
        owner = part.node.name if isinstance(part.node, nodes.Name) and part.node.name not in own else ""
        if owner == "params" and part.attr not in declared:
            message = f"params.{part.attr}: the workflow has no such parameter."
            yield message + did_you_mean(part.attr, declared), "unknown_param"
        elif owner in there and part.attr not in there[owner]:
            yield f"there is no {owner}.{part.attr} here, only {', '.join(there[owner])}.", "unknown_name"


def label(text: str, task: str, index: int, inputs: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """The name of one instance, at most LABEL_CHARACTERS in one line; where something is missing, a note of that."""
    instance = {"map_index": index, "task_id": task}
    values = {
        "params": params, "ti": instance, "task_instance": instance, "map_index": index,
        "task": {"task_id": task, "op_kwargs": inputs}, **inputs,
    }  # fmt: skip
    try:
        found = "".join(_shown(_value(part, values)) for part in _parts(_parsed(text)))
    except LabelError as error:
        found = f"(no name: {error})"
    plain = "".join(character if character.isprintable() else " " for character in found[:LABEL_CHARACTERS])
    return plain.strip() or "(no name: it is empty)"


@lru_cache(maxsize=256)
def _parsed(text: str) -> "nodes.Template":
    """The syntax tree. Raises BadValue."""
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import SandboxedEnvironment

    if len(text) > TEMPLATE_CHARACTERS:
        raise BadValue("too_long", f"The name of instances has at most {TEMPLATE_CHARACTERS} characters.")
    try:
        tree = SandboxedEnvironment().parse(text)
    except TemplateSyntaxError as error:
        raise BadValue("bad_template", f"{error.message}") from None
    except RecursionError:
        raise BadValue("bad_template", "It is nested too deeply.") from None
    for part in _parts(tree):
        _check(part)
    return tree


def _parts(tree: "nodes.Template") -> "Iterator[nodes.Expr]":
    from jinja2 import nodes

    for node in tree.body:
        if not isinstance(node, nodes.Output):
            raise BadValue("bad_template", "The name of instances has {{ … }} only, no {% … %}.")
        yield from node.nodes


def _check(node: "nodes.Node") -> None:
    """Raises BadValue for what is no look-up."""
    from jinja2 import nodes

    if isinstance(node, nodes.Filter):
        if node.name not in FILTERS:
            there = ", ".join(sorted(FILTERS))
            raise BadValue("bad_template", f"There is no filter {node.name} here: there are {there}.")
        if node.kwargs or node.dyn_args or node.dyn_kwargs or len(node.args) > 1:
            raise BadValue("bad_template", f"The filter {node.name} takes at most one value here.")
    elif not isinstance(node, _lookups()):
        said = type(node).__name__.lower()
        allowed = "names, .x, […], ~ and filters"
        raise BadValue("bad_template", f"The name of instances only looks up: {allowed}. A {said} has no place in it.")
    for child in node.iter_child_nodes():
        _check(child)


def _lookups() -> "tuple[type[nodes.Node], ...]":
    from jinja2 import nodes

    return (
        nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Const, nodes.Neg, nodes.Concat,
    )  # fmt: skip


def _value(node: Any, values: Mapping[str, Any]) -> Any:
    """What an expression that was checked comes to. Raises LabelError."""
    match type(node).__name__:
        case "TemplateData":
            return node.data
        case "Const":
            return node.value
        case "Name":
            return _cut(_item(values, node.name, node.name))
        case "Getattr":
            return _cut(_item(_value(node.node, values), node.attr, _words(node)))
        case "Getitem" if type(node.arg).__name__ == "Slice":
            return _sliced(node, values)
        case "Getitem":
            return _cut(_item(_value(node.node, values), _value(node.arg, values), _words(node)))
        case "Neg":
            number = _value(node.node, values)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise LabelError(f"{_shown(number)!r} is no number")
            return -number
        case "Concat":
            return "".join(_shown(_value(part, values)) for part in node.nodes)
    return _filtered(node, values)


def _filtered(node: Any, values: Mapping[str, Any]) -> Any:
    given = [_value(part, values) for part in node.args]
    try:
        value = _value(node.node, values)
    except LabelError:
        if node.name not in ("default", "d"):
            raise
        return given[0] if given else ""
    try:
        return _cut(FILTERS[node.name](value, *given))
    except (TypeError, ValueError, IndexError, OverflowError):
        raise LabelError(f"{_words(node.node)}|{node.name} does not go with {_shown(value)[:40]!r}") from None


def _item(value: Any, key: Any, words: str) -> Any:
    if isinstance(value, Mapping) and isinstance(key, str) and key in value:
        return value[key]
    if isinstance(value, str | list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    raise LabelError(f"there is no {words}")


def _sliced(node: Any, values: Mapping[str, Any]) -> Any:
    value = _value(node.node, values)
    parts = [None if part is None else _value(part, values) for part in (node.arg.start, node.arg.stop, node.arg.step)]
    if not isinstance(value, str | list) or not all(part is None or isinstance(part, int) for part in parts):
        raise LabelError(f"{_words(node.node)} is no text or list to take a part of")
    if parts[2] == 0:
        raise LabelError("a step of 0 leads nowhere")
    return value[slice(*parts)]


def _cut(value: Any) -> Any:
    return value[:_LOOKED_AT] if isinstance(value, str | list) else value


def _shown(value: Any) -> str:
    """A value as text, as far as a name has room for it."""
    if isinstance(value, str):
        return value
    # The encoder gives it piece by piece: of a large object no more than this is made.
    return "".join(islice(json.JSONEncoder(ensure_ascii=False).iterencode(value), _LOOKED_AT))[:_LOOKED_AT]


def _words(node: Any) -> str:
    """A look-up as its author wrote it."""
    match type(node).__name__:
        case "Name":
            return str(node.name)
        case "Getattr":
            return f"{_words(node.node)}.{node.attr}"
        case "Getitem":
            arg = node.arg.value if type(node.arg).__name__ == "Const" else "…"
            return f"{_words(node.node)}[{arg!r}]" if arg != "…" else f"{_words(node.node)}[…]"
    return "this"


def _round(value: float, digits: int = 0) -> float:
    return round(value, max(-20, min(20, digits)))


FILTERS: dict[str, Callable[..., Any]] = {
    "upper": lambda value: _shown(value).upper(),
    "lower": lambda value: _shown(value).lower(),
    "title": lambda value: _shown(value).title(),
    "capitalize": lambda value: _shown(value).capitalize(),
    "trim": lambda value: _shown(value).strip(),
    "string": lambda value: _shown(value),
    "tojson": lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _shown(value),
    "length": len,
    "count": len,
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "join": lambda value, by="": _shown(by).join(_shown(item) for item in value),
    "int": int,
    "round": _round,
    "default": lambda value, _="": value,
    "d": lambda value, _="": value,
}
