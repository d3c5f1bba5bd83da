"""What `rmctl dev` shows: each task as it runs with what it prints, and a table at the end."""

import json
import linecache
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rmctl.cli.output import STYLES, clean, span, state

SIGNS = {"succeeded": "✓", "failed": "✗", "skipped": "↷", "upstream_failed": "↷"}
PREVIEW = 100


def preview(value: Any) -> str:
    """A result in one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= PREVIEW else f"{text[: PREVIEW - 1]}…"


class Show:
    """Writes to a console as the run goes; `here` is the folder that paths are shown from."""

    def __init__(self, console: Console, here: Path) -> None:
        self.console, self.here = console, here
        self.rows: list[tuple[str, str, float | None, str]] = []
        self._begun = 0.0
        self._open = True

    def header(self, name: str, tasks: int, facts: str) -> None:
        """What is going to run."""
        said = f"  {tasks} task{'s' if tasks != 1 else ''}  {facts}"
        self.console.print(Text(clean(name), style="bold").append(said, style="not bold dim"))

    def begin(self, name: str, what: str) -> None:
        """A task begins."""
        self._begun, self._open = time.monotonic(), True
        self.console.print(Text("▸ ", style="cyan").append(clean(name), style="bold").append(f"  {what}", style="dim"))

    def output(self, text: str) -> None:
        """Something that a task prints."""
        for line in text.splitlines(keepends=True):
            if self._open:
                self.console.print(Text("  │ ", style="dim"), end="")
            self.console.print(Text(clean(line, lines=True)), end="", soft_wrap=True)
            self._open = line.endswith("\n")

    def note(self, text: str) -> None:
        """Something that is done otherwise than in the portal."""
        self.close()
        self.console.print(Text(f"  {clean(text)}", style="blue"), soft_wrap=True)

    def close(self) -> None:
        """End a line that the task has not ended."""
        if not self._open:
            self.console.print()
            self._open = True

    def end(self, name: str, how: str, detail: str, result: Any, line: tuple[str, int] | None = None) -> None:
        """A task has ended."""
        self.close()
        took = time.monotonic() - self._begun
        text = Text(f"  {SIGNS[how]} ", style=STYLES[how]).append(state(how)).append(f" in {span(took)}", style="dim")
        if result is not None:
            text.append("  → ", style="dim").append(clean(preview(result)))
        if detail:
            text.append(f"  {clean(detail)}", style=STYLES[how] if how == "failed" else "dim")
        self.console.print(text, soft_wrap=True)
        if line is not None:
            self._source(*line)
        self.rows.append((name, how, took, detail))

    def _source(self, file: str, number: int) -> None:
        """The failing line of the author's file, with those around it."""
        path = Path(file)
        shown = path.relative_to(self.here) if path.is_relative_to(self.here) else path
        self.console.print(Text(f"    {shown}:{number}", style="bold"))
        for near in range(max(1, number - 2), number + 3):
            content = linecache.getline(file, near).rstrip()
            if content or near == number:
                mark, style = ("❱", "red") if near == number else (" ", "dim")
                self.console.print(Text(f"    {mark} {near:>4} │ {clean(content)}", style=style))

    def dropped(self, name: str, how: str, why: str) -> None:
        """A task will not run."""
        text = Text(f"{SIGNS[how]} ", style=STYLES[how]).append(clean(name), style="bold").append("  ")
        self.console.print(text.append(state(how)).append(f"  {why}", style="dim"), soft_wrap=True)
        self.rows.append((name, how, None, why))

    def summary(self, name: str, how: str, took: float, folder: Path) -> None:
        """The table, and the verdict."""
        made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("task", "state", "time"):
            made.add_column(column, no_wrap=column != "task")
        for task, ended, seconds, _ in self.rows:
            made.add_row(Text(clean(task)), state(ended), "" if seconds is None else span(seconds))
        self.console.print()
        self.console.print(made)
        self.console.print()
        verdict = Text(clean(name), style="bold").append(" ").append(state(how)).append(f" in {span(took)}")
        verdict.append(f"  logs, results and artifacts: {folder}", style="not bold dim")
        self.console.print(verdict, soft_wrap=True)
