"""What the functions of an author's file take, return and choose, read from their source without running it.

Annotations become shapes of JSON. What is not plainly said is unknown (None) and never found wrong.
"""

import ast
import builtins
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of JSON value; `items` is the shape of the items of an array, or of the values of an object, `fields`
    those of an object whose names are known."""

    name: str
    items: "Shape | None" = None
    fields: "tuple[tuple[str, Shape | None], ...]" = ()


# Any of these kinds; None where a value is not known.
Shape = frozenset[Kind]

_SIMPLE = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "None": "null"}
_ARRAYS = ("list", "tuple", "List", "Tuple", "Sequence", "Iterable", "Collection")
_OBJECTS = ("dict", "Dict", "Mapping", "MutableMapping")
_MARKERS = ("task", "setup", "teardown")


@dataclass(frozen=True, slots=True)
class Annotated:
    """A shape and how its author wrote it."""

    text: str
    shape: Shape | None


UNKNOWN = Annotated("", None)


@dataclass(frozen=True, slots=True)
class Function:
    """What is known of a function. `choices` are the ids that it returns, by line; None where they are not literal."""

    line: int
    parameters: Mapping[str, Annotated]
    required: frozenset[str]
    open: bool
    returns: Annotated
    choices: tuple[tuple[int, frozenset[str]], ...] | None


@dataclass(frozen=True, slots=True)
class Source:
    """The functions of a file, and every name that it binds at its top level; None where that cannot be known."""

    functions: Mapping[str, Function] = field(default_factory=dict)
    names: frozenset[str] | None = None


@cache
def source_of(path: Path) -> Source:
    """What the file has. A file that cannot be parsed has nothing that is known."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return Source()
    reader = _Reader(tree)
    defined = [node for node in _top(tree.body) if isinstance(node, ast.FunctionDef)]
    # Of two with one name it depends on how the file runs which of them it is.
    times = Counter(node.name for node in defined)
    functions = {
        node.name: reader.function(node)
        for node in defined
        if times[node.name] == 1 and all(_marks(item) for item in node.decorator_list)
    }
    return Source(functions, reader.names)


def _marks(decorator: ast.expr) -> bool:
    """Whether it is one of `@task`, `@task.branch(…)`, `@rmctl.setup` …, which leave the function as it is."""
    found = decorator.func if isinstance(decorator, ast.Call) else decorator
    names = []
    while isinstance(found, ast.Attribute):
        names.append(found.attr)
        found = found.value
    return isinstance(found, ast.Name) and any(name in _MARKERS for name in (*names, found.id))


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.classes: dict[str, ast.ClassDef] = {}
        self.typing: dict[str, str] = {}
        bound: set[str] = set()
        known = True
        for node in _top(tree.body):
            if isinstance(node, ast.ImportFrom):
                known &= all(alias.name != "*" for alias in node.names)
                for alias in node.names:
                    if node.module in ("typing", "collections.abc", "typing_extensions"):
                        self.typing[alias.asname or alias.name] = alias.name
                    else:
                        bound.add(alias.asname or alias.name)
            elif isinstance(node, ast.Import):
                bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
                if isinstance(node, ast.ClassDef):
                    self.classes[node.name] = node
            else:
                names = (name for name in ast.walk(node) if isinstance(name, ast.Name))
                bound |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        self.bound = bound
        self.names = frozenset(bound | self.typing.keys()) if known else None

    def function(self, node: ast.FunctionDef) -> Function:
        given = node.args
        positional = [*given.posonlyargs, *given.args]
        named = [*positional, *given.kwonlyargs]
        optional = {a.arg for a in positional[len(positional) - len(given.defaults) :]}
        optional |= {a.arg for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None}
        return Function(
            line=node.lineno,
            parameters={a.arg: self.annotated(a.annotation) for a in named},
            required=frozenset(a.arg for a in named if a.arg not in optional),
            open=given.kwarg is not None,
            returns=self.annotated(node.returns),
            choices=_choices(node),
        )

    def annotated(self, node: ast.expr | None) -> Annotated:
        if node is None:
            return UNKNOWN
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return UNKNOWN
        return Annotated(ast.unparse(node), self.shape(node))

    def shape(self, node: ast.expr) -> Shape | None:
        """The kinds of JSON that an annotation allows."""
        if isinstance(node, ast.Constant) and node.value is None:
            return frozenset({Kind("null")})
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.annotated(node).shape
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return _union([self.shape(node.left), self.shape(node.right)])
        if isinstance(node, ast.Subscript):
            return self._generic(self._name(node.value), node.slice)
        name = self._name(node)
        if name in _SIMPLE:
            return frozenset({Kind(_SIMPLE[name])})
        if name in _ARRAYS:
            return frozenset({Kind("array")})
        if name in _OBJECTS:
            return frozenset({Kind("object")})
        return self._typed(name)

    def _name(self, node: ast.expr) -> str:
        """A builtin or a name of typing, by its own name; empty for anything else."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("typing", "t"):
            return node.attr
        if not isinstance(node, ast.Name):
            return ""
        if node.id in self.typing:
            return self.typing[node.id]
        return node.id if node.id in self.classes or (node.id not in self.bound and hasattr(builtins, node.id)) else ""

    def _generic(self, name: str, inner: ast.expr) -> Shape | None:
        items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
        if name == "Optional":
            return _union([self.shape(items[0]), frozenset({Kind("null")})])
        if name == "Union":
            return _union([self.shape(item) for item in items])
        if name == "Annotated":
            return self.shape(items[0])
        if name == "Literal":
            return shape_union(shape_of(ast.literal_eval(item)) for item in items if isinstance(item, ast.Constant))
        if name in ("tuple", "Tuple"):
            last = items[-1]
            if isinstance(last, ast.Constant) and last.value is Ellipsis:
                items = items[:-1]
            return frozenset({Kind("array", _union([self.shape(item) for item in items]))})
        if name in _ARRAYS:
            return frozenset({Kind("array", self.shape(items[0]))})
        if name in _OBJECTS and len(items) == 2:
            return frozenset({Kind("object", self.shape(items[1]))})
        return None

    def _typed(self, name: str) -> Shape | None:
        """A TypedDict of the file, as an object with its fields."""
        made = self.classes.get(name)
        if made is None or [self._name(base) for base in made.bases] != ["TypedDict"]:
            return None
        fields = tuple(
            (item.target.id, self.shape(item.annotation))
            for item in made.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        )
        return frozenset({Kind("object", None, fields)})


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the file is loaded, those in blocks included."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _top(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _top(handler.body)


def _choices(node: ast.FunctionDef) -> tuple[tuple[int, frozenset[str]], ...] | None:
    found: list[tuple[int, frozenset[str]]] = []
    pending: list[ast.AST] = list(node.body)
    while pending:
        item = pending.pop()
        if isinstance(item, ast.Yield | ast.YieldFrom):
            return None
        if isinstance(item, ast.Return):
            ways = _returned(item.value)
            if ways is None:
                return None
            found += [(item.lineno, way) for way in ways]
        elif not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(item)
    # It may also end without a return.
    return (*found, (node.lineno, frozenset()))


def _returned(value: ast.expr | None) -> list[frozenset[str]] | None:
    """The sets of ids that a returned expression may be."""
    if value is None or (isinstance(value, ast.Constant) and value.value is None):
        return [frozenset()]
    if isinstance(value, ast.IfExp):
        yes, no = _returned(value.body), _returned(value.orelse)
        return None if yes is None or no is None else yes + no
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return [frozenset({value.value})]
    if isinstance(value, ast.List | ast.Tuple):
        names = [i.value for i in value.elts if isinstance(i, ast.Constant) and isinstance(i.value, str)]
        return [frozenset(names)] if len(names) == len(value.elts) else None
    return None


def _union(shapes: list[Shape | None]) -> Shape | None:
    return None if any(shape is None for shape in shapes) else shape_union(shape for shape in shapes if shape)


def shape_union(shapes: Any) -> Shape:
    """All kinds of all shapes."""
    return frozenset().union(*shapes)


def shape_of(value: Any) -> Shape:
    """The shape of a value of JSON."""
    match value:
        case None:
            return frozenset({Kind("null")})
        case bool():
            return frozenset({Kind("boolean")})
        case int():
            return frozenset({Kind("integer")})
        case float():
            return frozenset({Kind("number")})
        case str():
            return frozenset({Kind("string")})
        case list() | tuple():
            return frozenset({Kind("array", shape_union(map(shape_of, value)) if value else None)})
    return frozenset({Kind("object", None, tuple((str(k), shape_of(v)) for k, v in value.items()))})


def of_schema(schema: Mapping[str, Any]) -> Shape | None:
    """What a parameter with this schema may be."""
    names = schema.get("type")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    items = of_schema(schema["items"]) if isinstance(schema.get("items"), Mapping) else None
    return frozenset(Kind(name, items if name == "array" else None) for name in names)


_ACCEPTED = {"integer": {"number"}, "boolean": {"integer", "number"}}


def meets(given: Shape | None, wanted: Shape | None) -> bool:
    """Whether a value of the one shape can be one of the other; what is unknown can."""
    if given is None or wanted is None or not given or not wanted:
        return True
    return any(_meets(one, other) for one in given for other in wanted)


def _meets(given: Kind, wanted: Kind) -> bool:
    if given.name != wanted.name:
        return wanted.name in _ACCEPTED.get(given.name, ())
    if given.fields and wanted.fields:
        have = dict(given.fields)
        return all(meets(have.get(name), shape) for name, shape in wanted.fields)
    if given.fields and wanted.items is not None:
        return all(meets(shape, wanted.items) for _, shape in given.fields)
    return meets(given.items, wanted.items)


def picked(shape: Shape | None, key: str | int) -> tuple[Shape | None, bool]:
    """(the part of a result with this key, whether there can be one at all). A name picks from each item of a list."""
    if shape is None:
        return None, True
    found: list[Shape | None] = []
    for kind in shape:
        if kind.name == "object":
            names = dict(kind.fields)
            if not kind.fields or str(key) in names:
                found.append(names.get(str(key), kind.items))
        elif kind.name == "array":
            if isinstance(key, int):
                found.append(kind.items)
            else:
                inner, possible = picked(kind.items, key)
                found += [frozenset({Kind("array", inner)})] if possible else []
    return (_union(found), True) if found else (None, False)


def array_of(shape: Shape | None) -> Shape:
    """A list of such values."""
    return frozenset({Kind("array", shape)})


def items_of(shape: Shape | None) -> tuple[Shape | None, bool]:
    """(the items of a value, whether it can be a list)."""
    if shape is None:
        return None, True
    arrays = [kind.items for kind in shape if kind.name == "array"]
    return (_union(arrays), True) if arrays else (None, False)
