"""What an import has to say besides the workflow it writes: what is different from Airflow, and what is not carried."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

# `lost`: not carried. `changed`: works in another way. `wrapped`: Airflow's operator itself runs it, so it needs nodes
# with Airflow. `needed`: to be made before the push.
Level = Literal["lost", "changed", "wrapped", "needed"]
LEVELS: tuple[Level, ...] = ("lost", "changed", "wrapped", "needed")


class Unportable(Exception):
    """A task cannot be carried as a native one; the message says why."""


class NotCarried(Exception):
    """A task cannot be carried at all; the message says why."""


@dataclass(slots=True)
class Finding:
    """One thing about a DAG or some of its tasks, at the line of the first of them."""

    level: Level
    message: str
    file: str
    line: int
    dag: str
    tasks: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The finding as JSON data."""
        return {
            "level": self.level, "file": self.file, "line": self.line, "dag": self.dag, "tasks": self.tasks,
            "message": self.message,
        }  # fmt: skip

    def __str__(self) -> str:
        of = f" ({_some(self.tasks)})" if self.tasks else ""
        return f"{self.file}:{self.line}: {self.level}: {self.message}{of}"


class Findings:
    """The findings of one DAG; the same about several tasks is one."""

    def __init__(self, file: str, dag: str) -> None:
        self.file, self.dag = file, dag
        self.found: dict[tuple[Level, str], Finding] = {}

    def add(self, level: Level, message: str, line: int, task: str | None = None) -> None:
        """Note something."""
        made = self.found.setdefault((level, message), Finding(level, message, self.file, line, self.dag))
        if task is not None and task not in made.tasks:
            made.tasks.append(task)

    def sorted(self) -> list[Finding]:
        """The worst first, then by line."""
        return sorted(self.found.values(), key=lambda one: (LEVELS.index(one.level), one.line, one.message))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
