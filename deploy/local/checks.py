"""`./portal test` and `./portal bench`: each on servers of its own, in a folder that is gone afterwards."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .console import Console, Refusal
from .environment import Environment
from .folder import DataFolder
from .stack import Address, Stack, free_port

# A selection of fewer test files is run in one process.
FILES_FOR_WORKERS = 20
# Each has a Redis database and about 20 connections to PostgreSQL of its own (servers.py: 16 and 300).
MOST_WORKERS = 8
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser for browser tests: $CHROMIUM or the first one on PATH."""
    named = os.environ.get("CHROMIUM") or os.environ.get("RMPORTAL_CHROMIUM")
    if named:
        found = shutil.which(named)
        if found is None:
            raise Refusal(f"CHROMIUM={named}: there is no such program.")
        return found
    return next((found for name in CHROMIUM if (found := shutil.which(name))), None)


def benchmarks(root: Path) -> list[str]:
    """The names that `./portal bench` takes: modules with a main part."""
    folder = root / "tests" / "benchmarks"
    return sorted(path.stem for path in folder.glob("*.py") if '__name__ == "__main__"' in path.read_text())


@contextmanager
def temporary_folder(name: str) -> Iterator[DataFolder]:
    """A data folder that is removed at the end, with everything that still runs in it."""
    data = DataFolder(Path(tempfile.mkdtemp(prefix=f"rmportal-{name}-")))
    try:
        data.open()
        data.acquire()
        yield data
    finally:
        data.end_leftovers()
        data.end_tasks()
        data.release()
        data.delete()


def selects_files(root: Path, arguments: list[str]) -> bool:
    """True when one of pytest's arguments names something to collect."""
    return any(not one.startswith("-") and (root / one.split("::")[0]).exists() for one in arguments)


def workers(root: Path, arguments: list[str], cores: int) -> list[str]:
    """pytest's arguments for a worker on each core; none for a few files, which are done before workers are up.

    None either for who asks for workers himself, or for what needs the terminal.
    """
    own = ("-n", "-s", "--numprocesses", "--dist", "--tx", "--capture", "--pdb", "--trace", "--collect-only", "--co")
    names = {one.split("=")[0] if one.startswith("--") else one[:2] for one in arguments}
    if cores < 2 or "no:xdist" in " ".join(arguments) or not names.isdisjoint(own):
        return []
    named = [found for one in arguments if not one.startswith("-") and (found := root / one.split("::")[0]).exists()]
    files = sum(len(list(path.rglob("test_*.py"))) if path.is_dir() else 1 for path in named or [root / "tests"])
    return ["-n", str(min(cores, MOST_WORKERS))] if files >= FILES_FOR_WORKERS else []


async def run_tests(environment: Environment, console: Console, arguments: list[str]) -> int:
    """Static checks and pytest; returns the first status that is not 0. Everything is run, whatever fails."""
    root = environment.root
    browser = chromium()
    if browser is None:
        console.warning("Chromium was not found: browser tests are skipped (install chromium or set CHROMIUM)")
    python = str(environment.python)
    parallel = workers(root, arguments, len(os.sched_getaffinity(0)))
    steps = {"pytest": [python, "-m", "pytest", *parallel, *arguments]}
    if not selects_files(root, arguments):
        steps = {
            "ruff": [python, "-m", "ruff", "check", "."],
            "mypy": [python, "-m", "mypy"],
            "migrations": [python, "manage.py", "makemigrations", "--check", "--dry-run"],
            **steps,
        }
    results: list[tuple[str, int, float]] = []
    with temporary_folder("test") as data:
        stack = Stack(environment, data, console, durable=False, isolated=True)
        stack.variables["RMPORTAL_SECRET_KEY"] = secrets.token_urlsafe(48)
        stack.variables["RMPORTAL_CHROMIUM"] = browser or ""
        async with stack.running():
            for name, command in steps.items():
                console.line(f"\n{console.paint(name, '1')}")
                began = time.monotonic()
                code = await stack.command(command)
                results.append((name, code, time.monotonic() - began))
    console.line()
    for name, code, seconds in results:
        if code:
            console.failure(f"{name:<44} {seconds:6.1f} s  status {code}")
        else:
            console.success(name, seconds)
    return next((code for _, code, _ in results if code), 0)


async def run_benchmark(
    environment: Environment, console: Console, name: str, arguments: list[str], keep: Path | None
) -> int:
    """Run one benchmark, against a fresh portal with production settings if it needs one; prints its JSON."""
    lines: list[str] = []
    if not needs_portal(environment.root, name):
        command = [str(environment.python), "-m", f"tests.benchmarks.{name}", *arguments]
        done = subprocess.run(command, cwd=environment.root, stdout=subprocess.PIPE, text=True, check=False)
        return _printed(name, done.returncode, done.stdout.rstrip("\n"), keep)
    with temporary_folder("bench") as data:
        data.secret_key()
        stack = Stack(environment, data, console, Address("127.0.0.1", free_port()), isolated=True)
        stack.variables["RMCTL_URL"] = stack.variables["RMPORTAL_URL"]
        stack.variables["RMPORTAL_PIDS_FILE"] = str(data.pids_file)
        command = [str(environment.python), "-m", f"tests.benchmarks.{name}", *arguments]
        async with stack.running():
            console.transient(f"benchmark {name}")
            code = await stack.command(command, lines.append, capture_stderr=False)
    return _printed(name, code, "\n".join(lines), keep)


def needs_portal(root: Path, name: str) -> bool:
    """Whether a benchmark is run against a portal: unless it says `PORTAL = False`."""
    return not re.search(r"^PORTAL = False\b", (root / "tests" / "benchmarks" / f"{name}.py").read_text(), re.MULTILINE)


def _printed(name: str, code: int, output: str, keep: Path | None) -> int:
    if code:
        sys.stdout.write(output + "\n")
        raise Refusal(f"benchmark {name} failed with status {code}.", 1)
    try:
        json.loads(output)
    except ValueError:
        raise Refusal(f"benchmark {name} printed something else than one JSON:\n{output[:2000]}", 1) from None
    sys.stdout.write(output + "\n")
    if keep is not None:
        keep.write_text(output + "\n")
    return 0
