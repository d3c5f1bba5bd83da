"""A portal that `./portal up` started, for tests that look at all of it."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .conftest import ROOT

OURS = ("DATABASE_URL", "REDIS_URL", "RMPORTAL_", "RMCTL_", "DJANGO_")


def own_environment(**variables: str) -> dict[str, str]:
    """The environment of a person's shell, without the test run's own servers, and these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, **variables}


class Running(subprocess.Popen[str]):
    """A portal that ends with the block that it was started for, also where a test fails before it was stopped."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None and self.poll() is None:
            self.terminate()
        super().__exit__(kind, *rest)


def start(data: Path, port: int, said: list[str] | None = None, **variables: str) -> Running:
    """Start `./portal up` with these variables and read on until it serves; `said` gets its lines."""
    process = Running(
        [sys.executable, str(ROOT / "portal"), "up", "--port", str(port), "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=own_environment(**variables),
    )
    assert process.stdout is not None
    lines = [] if said is None else said
    read_until(process.stdout, lines, "Ctrl-C")
    return process


def read_until(stream: Iterable[str], said: list[str], words: str) -> None:
    """Read lines until one has these words; fails the test when the stream ends before."""
    for line in stream:
        said.append(line)
        if words in line:
            return
    raise AssertionError("".join(said))
