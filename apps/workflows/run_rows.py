"""What a pass knows of one run: its rows, as far as they are loaded, and what becomes of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.dag import Counters
from engine.dag import TaskState as EngineState

from .caching import Caching
from .deferring import Deferring
from .expansion import Growing
from .limits import Limiting
from .models import Run
from .observe import TaskRow, Work
from .past import Hold
from .plans import Plan
from .states import TaskState
from .waits import WaitRow

Loader = Callable[[Mapping[int, Iterable[str]]], list[TaskRow]]
Ready = tuple[str, int]  # Name and instance; -1 for a task or a mapped task as a whole.


@dataclass(frozen=True, slots=True)
class Start:
    """A job to be made for a task or an instance."""

    row: TaskRow
    spec: dict[str, Any]


class RunRows:
    """A run, the rows of it that a pass touches, and what the pass has found out and done so far."""

    def __init__(self, run: Run, plan: Plan, load: Loader, now: datetime) -> None:
        self.run, self.plan, self.now = run, plan, now
        self._load = load
        self.rows: dict[str, TaskRow] = {}
        self.instances: dict[Ready, TaskRow] = {}
        self.made: list[TaskRow] = []
        self.starts: list[Start] = []
        self.finished: dict[str, EngineState] = {}
        self.ready: list[Ready] = []
        # Tasks that a branch or a condition leaves out, with a sentence that says so.
        self.left_out: dict[str, str] = {}
        self.deferring = Deferring(run, plan, now)
        # Mapped tasks of which further instances are to be made.
        self.growing = Growing(plan.limits)
        self.limiting = Limiting(plan.limits, plan.cached)
        self.caching = Caching()
        # What tasks wait for, as far as this pass looks at it, and results of tasks that ended in it without a job.
        self.waits: dict[int, WaitRow] = {}
        self.results: dict[Ready, Any] = {}
        # Tasks that wait for the run before this one, and those that did or could have and have started.
        self.held: dict[str, Hold] = {}
        self.let_go: list[TaskRow] = []
        # Places for further jobs; None without a limit.
        self.slots: int | None = None
        # What tasks weigh, where the author has said something about it.
        self.weights: Mapping[str, float] | None = None
        self._counters: dict[str, Counters] = {}
        self._logical_time = run.logical_time.astimezone(plan.zone).isoformat()
        bounds = (run.data_interval_start, run.data_interval_end)
        self._interval = [moment.astimezone(plan.zone).isoformat() for moment in bounds if moment is not None]

    def add(self, rows: Iterable[TaskRow]) -> None:
        """Take rows that were loaded; what is known already stays as it is."""
        for row in rows:
            if row.index >= 0:
                self.instances.setdefault((row.name, row.index), row)
            elif row.name not in self.rows:
                self.rows[row.name] = row
                self._counters[row.name] = self._counters_of(row)

    def _counters_of(self, row: TaskRow) -> Counters:
        """Counters for the engine; none to wait for once a task is decided, so that it is not decided again."""
        if row.state != TaskState.WAITING:
            return Counters()
        total = len(self.plan.graph.tasks[row.name].upstream)
        return Counters(row.succeeded, row.failed, row.skipped, total)

    def _need(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self.rows]
        if missing:
            self.add(self._load({self.run.pk: missing}))

    @property
    def touched(self) -> Iterable[TaskRow]:
        """Stored rows that have changed."""
        return (row for rows in (self.rows, self.instances) for row in rows.values() if row.changed and row.pk)

    def expect(self, work: Work) -> set[str]:
        """Take the rows that the work names; returns the tasks that have to be loaded before `take`."""
        names: set[str] = set()
        for row in (*(row for row, _ in work.due), *work.granted):
            self.add([row])
            names |= {row.name} | self.plan.reach(row.name)
        for item in work.news:
            self.add([item.row])
            if item.row.index >= 0:
                names.add(item.row.name)
            if item.job_state != "running":
                names |= self.plan.reach(item.row.name)
        return names - self.rows.keys()

    def _row(self, name: str, index: int) -> TaskRow:
        return self.rows[name] if index < 0 else self.instances[name, index]
