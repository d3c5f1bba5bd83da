"""The virtual environment in `.venv`, made from the locked and hashed requirement lists."""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .console import Console, Refusal, Step
from .processes import die_with_parent

RUNTIME = "requirements.txt"
DEVELOPMENT = "requirements-dev.txt"
STAMP = "rmportal.json"
LOCK = "rmportal.lock"
LOG = "install.log"
SCRIPT = """#!{python}
import sys

from rmctl.__main__ import main

sys.exit(main())
"""


class Environment:
    """`.venv` of the project at `root`. A stamp in it says what was installed from which lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder of the installed packages."""
        found = sorted((self.folder / "lib").glob("python3.*/site-packages"))
        if not found:
            raise Refusal(f"{self.folder} has no site-packages folder: remove it and start again.")
        return found[0]

    def ensure(self, console: Console, development: bool = False) -> None:
        """Make or complete the environment; costs a few file reads when nothing has changed.

        Two launchers at once wait for each other. Raises Refusal when packages cannot be installed.
        """
        wanted = [RUNTIME, DEVELOPMENT] if development else [RUNTIME]
        if self._missing(wanted) == []:
            return
        with self._locked(console):
            missing = self._missing(wanted)
            if missing is None:
                self._create(console)
                missing = wanted
            for name in missing:
                self._install(console, name)

    def _missing(self, wanted: list[str]) -> list[str] | None:
        """The lists that are not installed as locked; None when the environment has to be made anew."""
        try:
            stamp = json.loads((self.folder / STAMP).read_text())
        except (OSError, ValueError):
            return None
        if stamp.get("python") != self._interpreter() or stamp.get("root") != str(self.root):
            return None
        return [name for name in wanted if stamp.get(name) != self._digest(name)]

    def _interpreter(self) -> str:
        """What would break the environment when it changed: the interpreter behind it, and its version."""
        try:
            configuration = (self.folder / "pyvenv.cfg").read_text()
        except OSError:
            return ""
        version = re.search(r"^version\s*=\s*(\S+)", configuration, re.MULTILINE)
        return f"{os.path.realpath(self.python)} {version.group(1) if version else ''}"

    def _digest(self, name: str) -> str:
        return hashlib.sha256((self.root / name).read_bytes()).hexdigest()

    @contextmanager
    def _locked(self, console: Console) -> Iterator[None]:
        try:
            self.folder.mkdir(exist_ok=True)
            lock = open(self.folder / LOCK, "w")  # noqa: SIM115 - closed below
        except PermissionError:
            raise Refusal(
                f"{self.folder} has to be made or changed, and you may not write there: it belongs to another user. "
                "Start ./portal as that user, or use a copy of the project that is yours."
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.transient("another ./portal is making the environment; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create(self, console: Console) -> None:
        """An empty virtual environment; whatever an interrupted one left is removed, its lock file excepted."""
        for entry in self.folder.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        with console.step(f"Python {sys.version.split()[0]} environment"):
            base = getattr(sys, "_base_executable", None) or sys.executable
            arguments = [base, "-m", "venv", str(self.folder)]
            if importlib.util.find_spec("ensurepip") is None:
                # Debian keeps ensurepip in a package of its own; a system pip can serve the environment instead.
                arguments.insert(3, "--without-pip")
            made = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if made.returncode:
                raise Refusal(f"The virtual environment could not be made:\n{made.stdout}{made.stderr}", 1)

    def _pip(self) -> list[str]:
        if (self.packages / "pip").is_dir():
            return [str(self.python), "-m", "pip"]
        if importlib.util.find_spec("pip") is not None:
            return [sys.executable, "-m", "pip", "--python", str(self.python)]
        raise Refusal(
            f"{sys.executable} has neither ensurepip nor pip: install them, "
            "for example with `apt-get install python3-venv`, and start again."
        )

    def _install(self, console: Console, name: str) -> None:
        """Install one locked list and stamp it."""
        count = len(re.findall(r"^[A-Za-z0-9][^ ]*==", (self.root / name).read_text(), re.MULTILINE))
        stamp_path = self.folder / STAMP
        known = json.loads(stamp_path.read_text()) if stamp_path.is_file() else {}
        known.pop(name, None)
        options = ["--require-hashes", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        # Byte code is made at the first import: most of what is installed is never imported.
        command = [*self._pip(), "install", "--no-compile", *options, "-r", str(self.root / name)]
        with console.step(f"{count} packages from {name}") as step:
            self._run_pip(command, step)
            if name == RUNTIME:
                self._link_project()
            known.update(python=self._interpreter(), root=str(self.root))
            known[name] = self._digest(name)
            partial = stamp_path.with_suffix(".partial")
            partial.write_text(json.dumps(known, indent=1) + "\n")
            partial.replace(stamp_path)

    def _run_pip(self, command: list[str], step: Step) -> None:
        """Run pip with its output in install.log; raises Refusal with the end of it when pip fails."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        tail: list[str] = []
        collected = 0
        with (
            open(self.folder / LOG, "a") as log,
            subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # Left alone, it would go on changing what the next launcher finds unlocked.
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),
            ) as pip,
        ):
            assert pip.stdout is not None
            for line in pip.stdout:
                log.write(line)
                tail = [*tail[-14:], line.rstrip()]
                if line.startswith("Collecting "):
                    collected += 1
                    step.note(f"{collected}: {line.split()[1].split('=')[0]}")
                elif line.startswith("Installing"):
                    step.note("installing")
        if pip.returncode:
            told = "\n  ".join(tail)
            raise Refusal(f"pip could not install the packages ({self.folder / LOG} has all of it):\n  {told}", 1)

    def _link_project(self) -> None:
        """Make `rmctl` importable and callable from the environment wherever it is started."""
        (self.packages / "rmportal.pth").write_text(f"{self.root}\n")
        script = self.folder / "bin" / "rmctl"
        script.write_text(SCRIPT.format(python=self.python))
        script.chmod(0o755)
