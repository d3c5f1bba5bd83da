"""From an author's file to validated definitions and bundles; runs on the author's machine only."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rmctl.spec import FieldError, SpecError, WorkflowSpec, parse_workflow

from . import bundle, caching, dag, places, yaml_loader
from .dag import DAG
from .options import SdkError
from .places import Place, YamlPlaces


@dataclass(frozen=True, slots=True)
class CompiledWorkflow:
    """A definition ready to push, and the bundle it needs (None when it ships no files)."""

    spec: WorkflowSpec
    bundle: bytes | None = None
    files: list[str] = field(default_factory=list)

    @property
    def definition(self) -> dict[str, Any]:
        """The canonical definition."""
        return self.spec.definition


@dataclass(frozen=True, slots=True)
class Draft:
    """A definition as its author's file has it, not validated yet, with the files that it ships by their names in the
    bundle. `place` says where a part of the definition, such as `tasks[3].upstream`, was written."""

    definition: dict[str, Any]
    shipped: dict[str, Path]
    place: Callable[[str], Place | None]

    def finish(self) -> CompiledWorkflow:
        """The validated definition and its bundle. Raises SpecError and SdkError."""
        definition = self.definition
        content = bundle.pack(self.shipped) if self.shipped else None
        if content is not None:
            definition = {**definition, "bundle": bundle.digest(content)}
            _tell_code(definition, self.shipped)
        return CompiledWorkflow(parse_workflow(definition), content, sorted(self.shipped))

    def named(self, fault: FieldError) -> FieldError:
        """`tasks[3].upstream` says little to whoever wrote no list: the task's id stands in its place."""
        match = re.match(r"tasks\[(\d+)\](.*)", fault["field"])
        tasks = self.definition.get("tasks")
        task = tasks[int(match[1])] if match and isinstance(tasks, list) and int(match[1]) < len(tasks) else None
        if match and isinstance(task, dict) and isinstance(task.get("id"), str):
            return {**fault, "field": f"tasks.{task['id']}{match[2]}"}
        return fault


def compile_file(path: str | os.PathLike[str]) -> list[CompiledWorkflow]:
    """Every workflow of a `.py`, `.yaml`, `.yml` or `.json` file.

    Raises SdkError when the file cannot be used as it is written, and SpecError for a definition with faults.
    """
    compiled = []
    for draft in drafts(path):
        try:
            compiled.append(draft.finish())
        except SpecError as error:
            raise SpecError([draft.named(fault) for fault in error.errors]) from None
    return compiled


def drafts(path: str | os.PathLike[str]) -> list[Draft]:
    """The workflows of a file before anything of them is checked. Raises SdkError."""
    file = Path(path).absolute()
    if not file.is_file():
        raise SdkError(f"{path}: there is no such file.")
    if file.suffix == ".py":
        return _compile_python(file)
    if file.suffix in (".yaml", ".yml", ".json"):
        return [_compile_yaml(file)]
    raise SdkError(f"{path}: give a .py, .yaml, .yml or .json file.")


def _compile_yaml(file: Path) -> Draft:
    text = file.read_bytes()
    read = yaml_loader.parse_json if file.suffix == ".json" else yaml_loader.parse
    try:
        definition, patterns = yaml_loader.workflow(text, read)
    except yaml_loader.YamlError as error:
        raise SdkError(f"{file.name}: {error}", error.line) from None
    # With a bundle that the portal has nothing ships.
    if definition.get("bundle") is None:
        patterns += _named_files(definition)
    return Draft(definition, bundle.find(file.parent, patterns), YamlPlaces(file, text))


def _named_files(definition: dict[str, Any]) -> list[str]:
    """The files that tasks name."""
    tasks = definition.get("tasks")
    named = [task.get("file") for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    return [name for name in dict.fromkeys(named) if isinstance(name, str)]


def _compile_python(file: Path) -> list[Draft]:
    folder = file.parent
    before = set(sys.modules)
    dags = _execute(file)
    if not dags:
        raise SdkError(
            f'{file.name}: there is no DAG in it; write `with DAG("name") as dag:` at its top level.'
        )
    helpers = _own_modules(folder, before)
    compiled = []
    for made in dags:
        shipped = bundle.find(folder, made.files)

        def file_of(function: Any, shipped: dict[str, Path] = shipped) -> str:
            return _ship(function, folder, shipped)

        definition = made.definition(file_of=file_of)
        if "bundle" not in definition:
            shipped |= bundle.find(folder, _named_files(definition))
            if any(made_of.function is not None for made_of in made.tasks.values()):
                for path in (file, *helpers):
                    bundle.add(shipped, folder, path)
        compiled.append(Draft(definition, shipped, partial(places.in_dag, made)))
    return compiled


def _tell_code(definition: dict[str, Any], shipped: dict[str, Path]) -> None:
    """Say of Python tasks with a cache what their code is: less than the whole bundle, which changes more often."""
    tasks = definition.get("tasks")
    for task in tasks if isinstance(tasks, list) else ():
        if not isinstance(task, dict) or task.get("kind") != "python" or not task.get("cache"):
            continue
        cache = task["cache"] if isinstance(task["cache"], dict) else {"ttl": task["cache"]}
        if "code" not in cache and task.get("file") in shipped:
            task["cache"] = {**cache, "code": caching.code_digest(task["file"], shipped)}


def _execute(file: Path) -> list[DAG]:
    """Run the author's file and return the DAGs it made."""
    stem = file.stem
    name = f"task_{stem}" if stem in sys.modules or stem in sys.stdlib_module_names else stem
    spec = spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    dag.created.clear()
    try:
        with places.noted():
            spec.loader.exec_module(module)
        return list(dag.created)
    except SdkError as error:
        line = _line(error, file)
        raise SdkError(f"{file.name}{f':{line}' if line else ''}: {error}", line) from None
    except Exception as error:
        trace = "".join(traceback.format_exception(type(error), error, _frames(error, file))).rstrip()
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, file)
        raise SdkError(f"{file.name} could not be run:\n{trace}", line) from None
    finally:
        dag.created.clear()
        dag._open.clear()
        sys.path.remove(str(file.parent))
        del sys.modules[name]


def _frames(error: BaseException, file: Path) -> Any:
    """The traceback from the author's file on; all of it when that never ran (a syntax error)."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(file):
        frames = frames.tb_next
    return frames


def _line(error: BaseException, file: Path) -> int | None:
    """The innermost line of the author's file."""
    line, frames = None, error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == str(file):
            line = frames.tb_lineno
        frames = frames.tb_next
    return line


def _own_modules(folder: Path, before: set[str]) -> list[Path]:
    """Modules beside the author's file that it imported: tasks will import them too."""
    found = []
    for name in sorted(set(sys.modules) - before):
        source = getattr(sys.modules[name], "__file__", None)
        if not isinstance(sys.modules[name], ModuleType) or not source or name.split(".")[0] == "rmctl":
            continue
        path = Path(source)
        if path.suffix == ".py" and path.is_relative_to(folder) and "site-packages" not in path.parts:
            found.append(path)
            # Forgotten again, so that the next file's module of this name is its own.
            del sys.modules[name]
    return found


def _ship(function: Any, folder: Path, shipped: dict[str, Path]) -> str:
    """Take the function's file into the bundle; its name there."""
    name, file, line = function.__name__, Path(function.__code__.co_filename), function.__code__.co_firstlineno
    where = f"{file.name}:{line}: Task {name}"
    if function.__qualname__ != name or name == "<lambda>":
        raise SdkError(f"{where}: the function is defined inside another one; move it to the top of the file.", line)
    # A task calls what has this name when the file has been read to its end (`rmctl.runner`).
    last = function.__globals__.get(name)
    if getattr(last, "__wrapped__", last) is not function:
        raise SdkError(
            f"{where}: the file gives the name {name} to something else further on, and the task would call that; "
            "give one of them another name.",
            line,
        )
    return bundle.add(shipped, folder, file)
