"""Mapped tasks during a pass: their instances come into being little by little, as earlier ones start.

The row of the mapped task holds how many there will be (`width`). Instances are made in the order of their indices, so
how many there are says which is next; at any time few of them have not started (`Made.window`). What waits as rows and
not in the queue (questions, runs that were started, sensors between pokes) does not count among these. The pass that
sees an instance start or end makes the next ones in its own transaction; every few seconds a search finds tasks that
nobody told of (`unfinished`).
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from rmctl.spec import ArgumentError, CompiledTask
from rmctl.spec.mapping import Expansion

from . import unmade
from .observe import TaskRow
from .results import EXPANSION_BYTES, size
from .states import TaskState
from .unmade import Made


class Growing:
    """The mapped tasks of one run during a pass, as far as instances of them are to be made or started."""

    def __init__(self, limits: Container[str]) -> None:
        """`limits` has the tasks with limits over runs."""
        self._limits = limits
        # Tasks to be looked at, and those that this pass has looked at.
        self.asked: set[str] = set()
        self._done: set[str] = set()
        self._known: dict[str, Made] = {}
        # What this pass has made or started of them.
        self._rows: dict[str, list[TaskRow]] = {}
        self._widths: dict[str, int] = {}
        self._expansions: dict[str, Expansion] = {}

    def moved(self, group: TaskRow) -> None:
        """An instance has started or ended; only of wide tasks may some be missing."""
        if wide(group):
            self.asked.add(group.name)

    def unasked(self) -> set[str]:
        """The tasks of which the database has to be asked how far they are."""
        return self.asked - self._done

    def take(self, known: Mapping[str, Made], rows: Mapping[str, TaskRow], instances: Iterable[TaskRow]) -> None:
        """What the database says of the tasks that were asked for, with what this pass has changed already."""
        for row in instances:
            if row.pk and row.name in known and row.state != row.source:
                mine = known[row.name]
                mine.queued += (row.state == TaskState.QUEUED) - (row.source == TaskState.QUEUED)
                mine.waiting += (row.state == TaskState.WAITING) - (row.source == TaskState.WAITING)
        self._done |= self.asked
        self.asked = set()
        self._known |= known
        self._widths |= {name: rows[name].width or 0 for name in known}

    def incomplete(self, known: Iterable[str]) -> list[str]:
        """Those of the tasks that further instances are due of."""
        found = [(name, self._known[name]) for name in known]
        return [
            name
            for name, mine in found
            if mine.count < self._widths[name] and mine.waiting + mine.queued <= mine.window // 2
        ]

    def cleared(self, known: Iterable[str]) -> dict[str, int]:
        """Of those of the tasks with instances that wait, because they were cleared, how many are to start now."""
        found = [(name, self._known[name]) for name in known]
        return {
            name: mine.window - mine.queued - mine.in_line
            for name, mine in found
            if mine.waiting > mine.in_line and mine.queued + mine.in_line <= mine.window // 2
        }

    def restart(self, rows: Iterable[TaskRow]) -> None:
        """Instances that wait are to start in this pass."""
        for row in rows:
            self._known[row.name].waiting -= 1
            self._rows.setdefault(row.name, []).append(row)

    def expansion(self, task: CompiledTask, results: Mapping[str, Any], params: Mapping[str, Any]) -> Expansion:
        """What a task is expanded over, worked out once in a pass. Raises ArgumentError."""
        if task.id not in self._expansions:
            self._expansions[task.id] = task.expansion(results, params)
        return self._expansions[task.id]

    def due(self, group: TaskRow) -> range:
        """The indices of the instances that this pass makes of a task that has its width."""
        known = self._known.setdefault(group.name, Made())
        self._widths[group.name] = group.width or 0
        self._done.add(group.name)
        room = known.window - known.waiting - known.queued - len(self._rows.get(group.name, ()))
        return range(known.count, min(group.width or 0, known.count + room))

    def made(self, group: TaskRow, rows: Sequence[TaskRow]) -> None:
        """Instances of a task were made."""
        self._known[group.name].count += len(rows)
        self._rows.setdefault(group.name, []).extend(rows)

    def again(self, *, limited: bool) -> bool:
        """Whether a further pass has to go on with a task although perhaps no job will ever tell it to, as what it made
        or started has ended at once or has no job. What waits for a place, of a `limited` run or of a limit over runs,
        is told of."""
        for name, rows in self._rows.items():
            known, states = self._known[name], Counter(row.state for row in rows)
            more = known.count < self._widths[name] or (known.waiting > known.in_line and not limited)
            told = known.queued + states[TaskState.QUEUED] + (known.waiting if limited else known.in_line)
            if limited or name in self._limits:
                told += states[TaskState.WAITING]
            if more and told <= known.window // 2:
                return True
        # Others that ended at once since the pass asked how far the tasks are, by the cache or as they could not begin.
        return any(name not in self._known or self._known[name].count < self._widths[name] for name in self.asked)


def wide(group: TaskRow) -> bool:
    """Whether its instances may come little by little."""
    return (group.width or 0) > unmade.WINDOW


def require_same_width(group: TaskRow, expansion: Expansion) -> None:
    """Raises ArgumentError when the lists no longer make the instances that they once made."""
    if expansion.width != group.width:
        raise ArgumentError(
            f"The lists that {group.name} is mapped over make {expansion.width:,} instances, and made {group.width:,} "
            f"when it was expanded: clear {group.name} as a whole."
        )


def require_room(task: CompiledTask, expansion: Expansion, common: Mapping[str, Any]) -> None:
    """Raises ArgumentError when the arguments of all instances are larger together than the portal keeps."""
    own = sum(size(items) * expansion.repeats(name) for name, items in expansion.lists.items())
    if size(common) * expansion.width + own > EXPANSION_BYTES:
        raise ArgumentError(
            f"The arguments of the {expansion.width:,} instances of {task.id} are together larger than "
            f"{EXPANSION_BYTES // 2**20} MiB: write files and pass their names."
        )
