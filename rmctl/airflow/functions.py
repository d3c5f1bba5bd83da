"""Functions of an author's file that run without Airflow: taken out of it with what they use.

A DAG file imports Airflow at its top, which the nodes' Python does not have. A function that itself uses neither
Airflow nor a package that nodes lack is copied, with the imports, constants and helpers that it refers to, into a file
of its own; the text stays the author's.
"""

import ast
import builtins
import symtable
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .findings import Unportable

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """A source file: its top-level statements by the names that they bind, and its functions by line."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.lines = text.splitlines()
        self.tree = ast.parse(text)
        self.bound: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _binds(statement):
                self.bound.setdefault(name, []).append(statement)
        self.functions: dict[int, Function] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                for line in (node.lineno, *(decorator.lineno for decorator in node.decorator_list)):
                    self.functions[line] = node
        self.scopes = {(table.get_name(), table.get_lineno()): table for table in _tables(text, path)}
        self.lazy_annotations = any(
            isinstance(node, ast.ImportFrom) and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in self.tree.body
        )  # fmt: skip

    def line_of(self, identifier: str) -> int:
        """Where a task or DAG is made: the call that has its id as text, or the function of that name; otherwise 1."""
        last = identifier.rsplit(".", 1)[-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                given = [*node.args[:1], *(word.value for word in node.keywords if word.arg in ("task_id", "dag_id"))]
                if any(isinstance(value, ast.Constant) and value.value in (identifier, last) for value in given):
                    return node.lineno
        return next((node.lineno for node in self.functions.values() if node.name in (identifier, last)), 1)

    def globals_of(self, node: Function) -> set[str]:
        """Names that a function takes from its module, also in what is evaluated where it is defined."""
        table = self.scopes.get((node.name, node.lineno))
        names = set(_globals(table)) if table is not None else set()
        outside: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
        if not self.lazy_annotations:
            every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
            outside += [node.returns, *(argument.annotation for argument in every if argument is not None)]
        for part in outside:
            names |= _loads(part) if part is not None else set()
        return names


class Taken:
    """The functions of one module that go into a file of their own."""

    def __init__(self, module: Module, local: Mapping[str, tuple[str, str]], present: Collection[str]) -> None:
        """`local` has the author's own modules: path and text, by the name of the file below where it is imported from;
        `present` are modules that the nodes' Python has."""
        self.module, self.local, self.present = module, local, present
        self.parts: dict[int, str] = {}
        self.names: dict[str, Function] = {}
        # Names of the author's own modules that are imported; they ship too.
        self.modules: set[str] = set()

    def take(self, function: Mapping[str, Any]) -> Function:
        """Add the function of the facts. Raises Unportable, and then nothing was added."""
        name = function["$callable"].rsplit(".", 1)[-1]
        node = self.module.functions.get(function["line"])
        if node is None or node.name != name:
            raise Unportable("its function has no definition of its own in the file")
        if isinstance(node, ast.AsyncFunctionDef):
            raise Unportable(f"{name} is an async function")
        if function["free"]:
            raise Unportable(f"{name} uses {', '.join(function['free'])} of the function around it")
        if self.names.get(name, node) is not node:
            raise Unportable(f"the file has another function {name}")
        parts: dict[int, str] = {}
        modules: set[str] = set()
        kept = [decorator for decorator in node.decorator_list if not self._is_airflow(decorator)]
        if kept or function.get("decorated"):
            raise Unportable(f"{name} has a decorator of its own")
        parts[node.lineno] = textwrap.dedent("\n".join(self.module.lines[node.lineno - 1 : node.end_lineno]))
        self._imports(node, modules)
        self._follow(self.module.globals_of(node), parts, modules)
        self.parts |= parts
        self.modules |= modules
        self.names[name] = node
        return node

    def _is_airflow(self, decorator: ast.expr) -> bool:
        root: ast.AST = decorator
        while isinstance(root, ast.Call | ast.Attribute):
            root = root.func if isinstance(root, ast.Call) else root.value
        statements = self.module.bound.get(root.id, []) if isinstance(root, ast.Name) else []
        return any(name.split(".")[0] == "airflow" for statement in statements for name in _imported(statement))

    def _follow(self, names: set[str], parts: dict[int, str], modules: set[str]) -> None:
        """Add the statements that bind the names, and so on."""
        waiting = sorted(names)
        while waiting:
            name = waiting.pop()
            if name == "__file__":
                raise Unportable("it uses __file__, the place of the DAG file")
            statements = self.module.bound.get(name)
            if statements is None:
                if not hasattr(builtins, name) and name not in ("__name__", "__doc__"):
                    raise Unportable(f"it uses {name}, which is not defined at the top of the file")
                continue
            for statement in statements:
                start = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
                if start in parts:
                    continue
                parts[start] = "\n".join(self.module.lines[start - 1 : statement.end_lineno])
                self._imports(statement, modules)
                if isinstance(statement, Function):
                    waiting += sorted(self.module.globals_of(statement))
                    waiting += [name for decorator in statement.decorator_list for name in _loads(decorator)]
                else:
                    waiting += sorted(_loads(statement) - ({name} if isinstance(statement, ast.ClassDef) else set()))

    def _imports(self, node: ast.AST, modules: set[str]) -> None:
        for name in _imported(node):
            root = name.split(".")[0]
            if root == "airflow":
                raise Unportable(f"it uses {name} of Airflow")
            own = [file for file in self.local if file.split("/")[0] in (root, f"{root}.py")]
            for file in own:
                if file not in modules:
                    modules.add(file)
                    self._imports(ast.parse(self.local[file][1]), modules)
            if not own and root not in sys.stdlib_module_names and root not in self.present:
                raise Unportable(f"it imports {root}, which is not in the standard library")

    def text(self, origin: str) -> str:
        """The file: what was taken, in the order of the source."""
        head = f'"""Functions of {origin}, without Airflow."""\n'
        if self.module.lazy_annotations:
            head += "\nfrom __future__ import annotations\n"
        body, simple = "", True
        for line in sorted(self.parts):
            now_simple = self.parts[line].lstrip().startswith(("import ", "from "))
            body += ("\n" if simple and now_simple else "\n\n\n") + self.parts[line].rstrip()
            simple = now_simple
        return head + body + "\n"


def parameters(node: Function) -> tuple[list[str], set[str], bool]:
    """The names by which a function takes arguments, those of them that have a default, and whether `**` is used in it.

    Raises Unportable for what cannot be given by name.
    """
    given = node.args
    if given.posonlyargs or given.vararg:
        raise Unportable(f"{node.name} takes arguments that cannot be given by name")
    names = [argument.arg for argument in given.args]
    optional = set(names[len(names) - len(given.defaults) :])
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        names.append(argument.arg)
        if default is not None:
            optional.add(argument.arg)
    used = given.kwarg is not None and any(
        isinstance(inner, ast.Name) and inner.id == given.kwarg.arg and isinstance(inner.ctx, ast.Load)
        for inner in ast.walk(node)
    )
    return names, optional, used


def _binds(statement: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds."""
    if isinstance(statement, Function | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0]
        elif isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _imported(node: ast.AST) -> Iterator[str]:
    """Modules that are imported anywhere in it."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module != "__future__":
            yield inner.module or "."


def _loads(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)}


def _tables(text: str, path: str) -> Iterator[symtable.SymbolTable]:
    waiting: list[symtable.SymbolTable] = [symtable.symtable(text, path, "exec")]
    while waiting:
        table = waiting.pop()
        yield table
        waiting += table.get_children()


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Names of the module that a function or anything defined in it reads."""
    for symbol in table.get_symbols():
        if symbol.is_global() and symbol.is_referenced():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)
