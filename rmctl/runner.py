"""`python -m rmctl.runner FILE FUNCTION`: run one Python task.

Loads FILE, calls FUNCTION with the arguments in the JSON file `RM_INPUTS` and writes what it returns to
`RM_RESULT`. Exit status 1: the function raised; 2: there is nothing to call; 97: what it returned cannot be kept; 98:
it says that trying again is of no use (`rmctl.TaskFailed`); 99: it says that it is skipped (`rmctl.TaskSkipped`).
With `--script` the text that it returns is then run by bash in its place; with `--poke` it returns whether it is done,
or a `rmctl.Poked`.
Started for every Python task, so it imports almost nothing.
"""

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

RESULT_BYTES = 256 * 1024
# Exit statuses by which a task says how it ended; a script uses the same.
RESULT_STATUS, FAIL_STATUS, SKIP_STATUS = 97, 98, 99
MODES = ("--poke", "--script")


class RunnerError(Exception):
    """The task cannot be started or its result not be kept; `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: "list[str]") -> int:
    """Run the task; returns the exit status."""
    mode = arguments[0] if arguments and arguments[0] in MODES else ""
    if len(arguments) != 2 + bool(mode):
        print("usage: python -m rmctl.runner [--poke | --script] FILE FUNCTION", file=sys.stderr)
        return 2
    file, name = arguments[-2:]
    try:
        inputs = _inputs()
        function = _function(_load(file), file, name)
        result = _call(function, inputs)
        if mode == "--script":
            _become(result, name)
        if mode == "--poke":
            result = {"done": bool(result), "value": getattr(result, "value", None)}
        _write(_encode(result, name))
    except RunnerError as error:
        print(f"rmctl.runner: {error}", file=sys.stderr)
        return error.status
    return 0


def _inputs() -> "dict[str, Any]":
    path = os.environ.get("RM_INPUTS")
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            inputs: Any = json.load(stream)
    except (OSError, ValueError) as error:
        raise RunnerError(f"cannot read the inputs from RM_INPUTS ({path}): {error}") from None
    if not isinstance(inputs, dict):
        raise RunnerError("the inputs are not an object of arguments by name")
    return inputs


def _load(file: str) -> "ModuleType":
    """The author's file as a module; its DAGs are built and forgotten."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise RunnerError(f"{file} is not in the working folder; was it shipped in the bundle?")
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    stem = os.path.splitext(os.path.basename(path))[0]
    # A file named like a module that is there already must not take its place.
    name = f"task_{stem}" if stem in sys.modules or stem in sys.stdlib_module_names else stem
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RunnerError(f"{file} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        _print_error(error)
        raise RunnerError(f"{file} could not be loaded") from None
    return module


def _function(module: "ModuleType", file: str, name: str) -> "Any":
    marked = getattr(module, name, None)
    function = getattr(marked, "__wrapped__", marked)
    if not callable(function):
        raise RunnerError(f"{file} has no function {name}")
    return function


def _call(function: "Any", inputs: "dict[str, Any]") -> "Any":
    try:
        return function(**inputs)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if isinstance(status, int) and status in (FAIL_STATUS, SKIP_STATUS):
            sys.stdout.flush()
            print(f"{'skipped' if status == SKIP_STATUS else 'failed'}: {error}", file=sys.stderr)
            raise SystemExit(status) from None
        _print_error(error)
        raise SystemExit(1) from None


def _become(script: object, name: str) -> None:
    """Go on as bash with the script that the function has made."""
    if not isinstance(script, str) or not script.strip() or "\0" in script:
        raise RunnerError(f"{name} must return the script that bash is to run as text", 1)
    sys.stdout.flush()
    sys.stderr.flush()
    for shell in ("bash", "sh"):
        try:
            os.execvp(shell, [shell, "-c", script])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RunnerError(f"the script that {name} returned cannot be run: {error}", 1) from None
    raise RunnerError("there is no bash and no sh on this node")


def _print_error(error: Exception) -> None:
    """The traceback without this module's own frames."""
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
        frames = frames.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, frames)


def _encode(result: object, name: str) -> bytes:
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        message = f"{name} returned {_culprit(result)}, which cannot be stored as JSON"
        raise RunnerError(message, RESULT_STATUS) from None
    if len(text) > RESULT_BYTES:
        raise RunnerError(
            f"{name} returned {len(text) // 1024} KiB; a result has at most {RESULT_BYTES // 1024} KiB. "
            "Write large data to a file with rmctl.artifact(...) and return its name.",
            RESULT_STATUS,
        )
    return text


def _culprit(value: object, where: str = "result", depth: int = 0) -> str:
    """The first part of a value that is not JSON, with its place."""
    if depth > 50:
        return f"a structure nested more than 50 levels deep ({where[:100]}…)"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool | None):
                return f"the key {key!r} at {where}"
            found = _culprit(item, f"{where}[{key!r}]", depth + 1)
            if found:
                return found
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            found = _culprit(item, f"{where}[{index}]", depth + 1)
            if found:
                return found
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return f"{value} at {where}"
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"text with half of a surrogate pair at {where}"
    elif value is not None and not isinstance(value, int):
        return f"a {type(value).__module__}.{type(value).__name__} at {where}"
    return ""


def _write(text: bytes) -> None:
    """Whole or not at all: the agent may look at any time."""
    path = os.environ.get("RM_RESULT")
    if not path:
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise RunnerError(f"cannot write the result to {path}: {error}", 1) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
