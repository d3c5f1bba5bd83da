"""Running one instance of a task as a node would: its folder, its variables, its command, its result.

Python tasks are called in this process, so that a debugger stops in them; with `isolated`, and whatever bash runs,
it is the very command of the job, in a process of its own.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import rmctl
from rmctl import render, runner
from rmctl.names import STATE_VARIABLE
from rmctl.spec import CompiledTask
from rmctl.spec.templates import KEY, STATUS

from .stored import Missing, Stored

# How an instance ended that never got a process, or whose time was over.
NOT_STARTED, TIME_OVER = -1, -2
_RENDERED = ["python", "-m", "rmctl.render"]


@dataclass(slots=True)
class Ended:
    """How an instance ended: its exit status, result, why in words, and the line of the author's file that failed."""

    status: int
    result: Any = None
    detail: str = ""
    line: tuple[str, int] | None = None


class Machine:
    """Where instances run; `files` are the author's by their names in the bundle."""

    def __init__(
        self, folder: Path, bundle: bytes | None, files: Mapping[str, Path], stored: Stored, *, isolated: bool
    ) -> None:
        self.folder, self.bundle, self.files, self.stored, self.isolated = folder, bundle, files, stored, isolated
        # The socket of what answers tasks that ask for state.
        self.state: Path | None = None
        self._modules: dict[str, ModuleType] = {}

    def run(self, task: CompiledTask, job: Mapping[str, Any], name: str, write: Callable[[str], None]) -> Ended:
        """Run the job of an instance; what it prints goes to `write`, and to the log in its folder."""
        place = self.folder / name
        if place.exists():
            shutil.rmtree(place)
        for part in ("work", "artifacts", "saved", "tmp"):
            (place / part).mkdir(parents=True)
        if self.bundle is not None:
            with tarfile.open(fileobj=io.BytesIO(self.bundle)) as archive:
                archive.extractall(place / "work", filter="data")
        (place / "inputs.json").write_text(json.dumps(job["inputs"], ensure_ascii=False), encoding="utf-8")
        group = job["groups"][0]
        try:
            environment = self._environment(place, group)
        except Missing as error:
            return Ended(NOT_STARTED, detail=str(error))
        with open(place / "log", "w", encoding="utf-8") as log:

            def output(text: str) -> None:
                log.write(text)
                write(text)

            command = group["command"] or ["bash", "-c", group["script"]]
            if task.kind == "python" and not self.isolated:
                ended = self._call(command, environment, place, output)
            else:
                ended = _process(command, environment, place, job["time_limit"], output)
        if ended.status == 0:
            ended = _result(place / "result.json", ended)
        shutil.rmtree(place / "work")
        for part in ("artifacts", "saved", "tmp"):
            with suppress(OSError):
                (place / part).rmdir()
        return ended

    def _environment(self, place: Path, group: Mapping[str, Any]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RM_", "RMCTL_"))}
        package = str(Path(rmctl.__file__).parent.parent)
        path = [package, own["PYTHONPATH"]] if "PYTHONPATH" in own else [package]
        return {
            **own,
            # `python` in a task is the interpreter of the node, here this one.
            "PATH": f"{Path(sys.executable).parent}:{own.get('PATH', os.defpath)}",
            "PYTHONPATH": ":".join(path),
            "TMPDIR": str(place / "tmp"),
            **group["env"],
            **self.stored.environment(group.get("secrets") or {}),
            "RM_JOB_ID": "0", "RM_ATTEMPT": "1", "RM_RANK": "0", "RM_SIZE": "1", "RM_GROUP": "main", "RM_TENANT": "dev",
            "RM_INPUTS": str(place / "inputs.json"),
            "RM_RESULT": str(place / "result.json"),
            "RM_ARTIFACTS": str(place / "artifacts"),
            "RM_CHECKPOINT": str(place / "checkpoint"),
            "RM_CHECKPOINT_DIR": str(place / "saved"),
            **({STATE_VARIABLE: str(self.state)} if STATE_VARIABLE in group["env"] else {}),
        }  # fmt: skip

    def _call(
        self, command: list[str], environment: dict[str, str], place: Path, output: Callable[[str], None]
    ) -> Ended:
        """A Python task in this process: the function of the author's own file."""
        mode, file, name = ("", *command[-2:]) if command[-3] == "rmctl.runner" else command[-3:]
        templated = command[: len(_RENDERED)] == _RENDERED
        with _inside(environment, place / "work", output):
            try:
                if templated:
                    _rendered(place)
                with open(os.environ["RM_INPUTS"], encoding="utf-8") as stream:
                    inputs = json.load(stream)
                function = runner._function(self._module(file), file, name)
                result = function(**inputs)
                if mode == "--poke":
                    result = {"done": bool(result), "value": getattr(result, "value", None)}
                if mode != "--script":
                    runner._write(runner._encode(result, name))
                    return Ended(0)
            except render.RenderError as error:
                output(f"template: {error}\n")
                return Ended(STATUS, detail=f"A template could not be rendered: {error}")
            except runner.RunnerError as error:
                output(f"{error}\n")
                return Ended(error.status, detail=str(error))
            except SystemExit as error:
                return _exited(error)
            except Exception as error:
                return self._raised(error, output)
        if not isinstance(result, str) or not result.strip():
            return Ended(1, detail=f"{name} must return the script that bash is to run as text")
        return _process(["bash", "-c", result], environment, place, None, output)

    def _module(self, file: str) -> ModuleType:
        """The author's file, loaded once: its own path, so that breakpoints in it are met."""
        if file not in self._modules:
            self._modules[file] = runner._load(str(self.files[file]))
        return self._modules[file]

    def _raised(self, error: Exception, output: Callable[[str], None]) -> Ended:
        """An exception of the author's code: shown from their first line on, with the innermost of their lines."""
        status = getattr(error, "exit_status", None)
        if status in (runner.FAIL_STATUS, runner.SKIP_STATUS):
            return Ended(status, detail=str(error))
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        output("".join(traceback.format_exception(type(error), error, frames)))
        own = {str(path) for path in self.files.values()}
        line = None
        while frames is not None:
            if frames.tb_frame.f_code.co_filename in own:
                line = (frames.tb_frame.f_code.co_filename, frames.tb_lineno)
            frames = frames.tb_next
        return Ended(1, detail=f"{type(error).__name__}: {error}", line=line)


def _rendered(place: Path) -> None:
    """Render the templates of the arguments and variables of a task in its environment."""
    with open(os.environ["RM_INPUTS"], encoding="utf-8") as stream:
        inputs = json.load(stream)
    given = inputs.pop(KEY)
    render._render([""], inputs, given)


def _exited(error: SystemExit) -> Ended:
    """`sys.exit(…)` in a function ends its task."""
    if isinstance(error.code, int) or error.code is None:
        return Ended(error.code or 0, detail=f"It exited with status {error.code or 0}.")
    return Ended(1, detail=str(error.code))


def _process(
    command: list[str], environment: dict[str, str], place: Path, limit: float | None, output: Callable[[str], None]
) -> Ended:
    """A command in a process of its own, at most `limit` seconds."""
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    if command[0] == "bash" and shutil.which("bash") is None:
        command = ["sh", *command[1:]]
    try:
        process = subprocess.Popen(
            command, cwd=place / "work", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Ended(NOT_STARTED, detail=f"{command[0]}: {error.strerror}")
    over = threading.Event()

    def stop() -> None:
        over.set()
        _kill(process)

    timer = threading.Timer(limit, stop) if limit is not None else None
    assert process.stdout is not None
    try:
        if timer is not None:
            timer.start()
        for line in process.stdout:
            output(line)
        status = process.wait()
    finally:
        _kill(process)
        if timer is not None:
            timer.cancel()
        process.stdout.close()
        process.wait()
    if over.is_set():
        return Ended(TIME_OVER, detail=f"It ran longer than its time limit of {limit:g} seconds.")
    if status < 0:
        return Ended(status, detail=f"It was ended by {signal.Signals(-status).name}.")
    said = "A template could not be rendered." if status == STATUS else f"It exited with status {status}."
    return Ended(status, detail=said if status else "")


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the process and everything it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _result(path: Path, ended: Ended) -> Ended:
    """The result that an instance wrote, as the portal takes it."""
    if not path.exists():
        return ended
    content = path.read_bytes()
    if len(content) > runner.RESULT_BYTES:
        limit = runner.RESULT_BYTES // 1024
        return Ended(1, detail=f"Its result has {len(content) // 1024} KiB; at most {limit} KiB are kept.")
    try:
        ended.result = json.loads(content)
    except ValueError as error:
        return Ended(1, detail=f"What it wrote to RM_RESULT is not JSON: {error}.")
    return ended


class _Stream(io.TextIOBase):
    """Standard output of a function: to `output`, with the terminal's own ways for a debugger that asks."""

    encoding = "utf-8"

    def __init__(self, output: Callable[[str], None], under: TextIO) -> None:
        self._output, self._under = output, under

    def write(self, text: str) -> int:
        self._output(text)
        return len(text)

    def flush(self) -> None:
        self._under.flush()

    def isatty(self) -> bool:
        return self._under.isatty()

    def fileno(self) -> int:
        return self._under.fileno()


@contextmanager
def _inside(environment: dict[str, str], folder: Path, output: Callable[[str], None]) -> Iterator[None]:
    """This process as the task: its variables, folder and output."""
    before, here = dict(os.environ), os.getcwd()
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        with redirect_stdout(_Stream(output, sys.stdout)), redirect_stderr(_Stream(output, sys.stderr)):
            yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
