"""The core stays pure: numpy and the standard library, no clock, no I/O, no unseeded randomness."""

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "engine").rglob("*.py"))
ALLOWED = {
    "bisect", "collections", "copy", "dataclasses", "enum", "engine", "functools", "heapq", "itertools", "math",
    "numpy", "operator", "random", "types", "typing",
}  # fmt: skip
# `print` and `open` do I/O; module-level functions of `random` and `numpy.random` share an unseeded state.
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "id"}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the engine imports itself by its full name"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_module_is_pure(file: Path) -> None:
    tree = ast.parse(file.read_text())
    # Filters and scores are found by their files.
    finding = {"importlib", "pkgutil"} if file.parts[-2:] == ("filters", "registry.py") else set()
    assert imported(tree) <= ALLOWED | finding
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"line {node.lineno} calls {node.func.id}"
            if node.func.id == "Random":
                assert node.args, f"line {node.lineno} makes a Random without a seed"
        if isinstance(node, ast.Attribute):
            assert node.attr != "random", f"line {node.lineno} uses a shared random state"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        assert not (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))


def test_there_is_something_to_check() -> None:
    assert len(FILES) >= 10
