"""Mapped tasks during a pass: their instances come into being little by little, as earlier ones start.

The row of the mapped task holds how many there will be (`width`). Instances are made in the order of their indices, so
how many there are says which is next; at any time few of them have not started (`Made.window`). What waits as rows and
not in the queue (questions, runs that were started, sensors between pokes) does not count among these. The pass that
sees an instance start or end makes the next ones in its own transaction; every few seconds a search finds tasks that
nobody told of (`unfinished`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rmctl.spec import ArgumentError, CompiledTask
from rmctl.spec.mapping import Expansion

from . import unmade
from .observe import TaskRow
from .results import EXPANSION_BYTES, size
from .states import TaskState
from .unmade import Made

_NOT_STARTED = (TaskState.WAITING, TaskState.QUEUED)

class Growing:
    """The mapped tasks of one run during a pass, as far as instances of them are to be made."""

    def __init__(self) -> None:
        # Tasks to be looked at, and those of which this pass has made some already.
        self.asked: set[str] = set()
        self._done: set[str] = set()
        self._known: dict[str, Made] = {}
        self._expansions: dict[str, Expansion] = {}
        # Whether a further pass has to go on although no job may ever tell it to.
        self.again = False

    def moved(self, group: TaskRow) -> None:
        """An instance has started or ended; only of wide tasks may some be missing."""
        if (group.width or 0) > unmade.WINDOW:
            self.asked.add(group.name)

    def take(self, known: Mapping[str, Made], rows: Mapping[str, TaskRow], instances: Iterable[TaskRow]) -> list[str]:
        """What the database says of the tasks that were asked for; returns those that further instances are due of."""
        known = {name: each for name, each in known.items() if each.count < (rows[name].width or 0)}
        for row in instances:
            if row.pk and row.name in known and row.state != row.source:
                known[row.name].idle += (row.state in _NOT_STARTED) - (row.source in _NOT_STARTED)
        self._done |= self.asked
        self.asked = set()
        self._known |= known
        return [name for name, each in known.items() if each.idle <= each.window // 2]

    def unasked(self) -> set[str]:
        """The tasks of which the database has to be asked how far they are."""
        return self.asked - self._done

    def expansion(self, task: CompiledTask, results: Mapping[str, Any], params: Mapping[str, Any]) -> Expansion:
        """What a task is expanded over, worked out once in a pass. Raises ArgumentError."""
        if task.id not in self._expansions:
            self._expansions[task.id] = task.expansion(results, params)
        return self._expansions[task.id]

    def due(self, group: TaskRow) -> range:
        """The indices of the instances that this pass makes of a task that has its width."""
        known = self._known.get(group.name, Made())
        self._done.add(group.name)
        return range(known.count, min(group.width or 0, known.count + known.window - known.idle))

    def made(self, group: TaskRow, rows: Iterable[TaskRow]) -> None:
        """Instances were made: whether it goes on by itself once some of them start."""
        found = list(rows)
        known = self._known.get(group.name, Made())
        idle = known.idle + sum(row.state in _NOT_STARTED for row in found)
        if known.count + len(found) < (group.width or 0) and idle <= known.window // 2:
            self.again = True


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
