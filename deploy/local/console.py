"""What the launcher says: one line per step with its seconds; colours only on a terminal."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Refusal(Exception):
    """The launcher cannot do what was asked; the text says why and what to do. `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


class Step:
    """One thing in the making; `note` shows how far it is, on a terminal only."""

    def __init__(self, console: "Console", title: str) -> None:
        self.console = console
        self.title = title
        self.started = time.monotonic()

    def note(self, text: str) -> None:
        """Replace the transient line of this step."""
        self.console.transient(f"{self.title}  {text}")


class Console:
    """Lines for people on `stream`. Colours need a terminal, and NO_COLOR unset (https://no-color.org)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = self.terminal and not os.environ.get("NO_COLOR")
        unicode = (self.stream.encoding or "").lower().replace("-", "") == "utf8"
        self.done, self.failed, self.warned, self.busy = "✓✗!·" if unicode else ("+", "x", "!", "-")
        self._transient = False

    def paint(self, text: str, code: str) -> str:
        """`text` in an ANSI colour (32 green, 31 red, 33 yellow, 2 dim, 1 bold) where colours are wanted."""
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def line(self, text: str = "") -> None:
        """One line; a transient line gives way to it."""
        self._write(("\r\033[K" if self._transient else "") + text + "\n")
        self._transient = False

    def transient(self, text: str) -> None:
        """A line that the next one replaces; nothing where it could not be replaced."""
        if self.terminal:
            self._write(f"\r\033[K{self.paint(self.busy, '2')} {text[:76]}")
            self._transient = True

    def success(self, text: str, seconds: float | None = None) -> None:
        """A finished step."""
        took = "" if seconds is None else self.paint(f"{seconds:6.1f} s", "2")
        self.line(f"{self.paint(self.done, '32')} {text:<44} {took}".rstrip())

    def warning(self, text: str) -> None:
        """Something that people should know and that does not stop the work."""
        self.line(f"{self.paint(self.warned, '33')} {text}")

    def failure(self, text: str) -> None:
        """A step that failed."""
        self.line(f"{self.paint(self.failed, '31')} {text}")

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show `title` while the body runs, and its outcome with the seconds at the end."""
        step = Step(self, title)
        self.transient(title)
        try:
            yield step
        except BaseException:
            self.failure(step.title)
            raise
        self.success(step.title, time.monotonic() - step.started)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            # Whoever read us has gone; the work goes on, its log is in the data folder.
            self.stream = open(os.devnull, "w")  # noqa: SIM115 - stays open as long as the process
            self.terminal = self._transient = False
