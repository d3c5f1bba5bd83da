"""`Cache` of a task, and what of the shipped files its result may depend on. The first runs in every Python task, so
this imports nothing heavy."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path
    from typing import Any

# Modules and functions by which a file may run another that it does not import.
_DYNAMIC = frozenset({"importlib", "pkgutil", "runpy", "__import__", "compile", "eval", "exec"})


class Cache:
    """For how long a task's result is used again (`ttl`: seconds, `"1d"` or a timedelta) where its code and inputs are
    the same. Another `version` makes it anew; arguments in `ignore` do not matter."""

    def __init__(self, ttl: "str | float | timedelta", *, version: str = "", ignore: "Sequence[str]" = ()) -> None:
        self.fields = {"ttl": seconds(ttl), "version": version, "ignore": list(ignore)}


def seconds(ttl: "Any") -> "Any":
    """A timedelta in seconds; anything else as it is."""
    return ttl.total_seconds() if hasattr(ttl, "total_seconds") else ttl


def cache_fields(value: "Any") -> "Any":
    """What stands in a definition for `cache=`."""
    return value.fields if isinstance(value, Cache) else seconds(value)


def code_digest(name: str, shipped: "Mapping[str, Path]") -> str:
    """SHA-256 over the shipped files that a function of the Python file `name` may run or read.

    These are the file itself, the modules among the shipped files that it imports, directly or through each other, and
    every shipped file that is no Python file. Where one of the modules can run others that it does not name, as with
    importlib, all files count.
    """
    from hashlib import sha256

    modules = {other: shipped[other].read_bytes() for other in shipped if other.endswith(".py")}
    reached = _reached(name, modules)
    whole = sha256()
    for other in sorted(shipped):
        if other not in modules or reached is None or other in reached:
            content = modules.get(other) or shipped[other].read_bytes()
            whole.update(f"{len(other.encode())} {other} {sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()


def _reached(name: str, modules: "Mapping[str, bytes]") -> "set[str] | None":
    """The modules that one of them leads to, itself included; None where that cannot be told."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found or current not in modules:
            continue
        found.add(current)
        named = _imported(current, modules[current])
        if named is None:
            return None
        # The runner puts the folder of the task's file first in the path, the author's machine that of the DAG's file.
        for folder in {"", name.rpartition("/")[0], current.rpartition("/")[0]}:
            for dotted in named:
                path = f"{folder}/{dotted}".lstrip("/")
                parts = path.split("/")
                waiting.append(f"{path}.py")
                waiting += ["/".join([*parts[:count], "__init__.py"]) for count in range(1, len(parts) + 1)]
    return found


def _imported(name: str, content: bytes) -> "set[str] | None":
    """What a module imports, as paths without `.py`; None where it may run more, or cannot be read."""
    import ast

    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return None
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*_package(name, node.level), *([node.module] if node.module else [])])
            dotted = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        else:
            if isinstance(node, ast.Name) and node.id in _DYNAMIC:
                return None
            continue
        if _DYNAMIC & {part for whole in dotted for part in whole.split(".")[:1]}:
            return None
        found.update(whole.replace(".", "/") for whole in dotted if whole)
    return found


def _package(name: str, level: int) -> "list[str]":
    """The package that a relative import of a file begins from."""
    folders = name.split("/")[:-1]
    return folders[: len(folders) - (level - 1)] if level else []
