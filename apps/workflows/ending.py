"""What happened to the tasks of one run: jobs that moved, waits that are over, and the ends of instances and groups."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from engine.dag import TaskState as EngineState
from engine.dag import mapped_outcome
from rmctl.spec import ArgumentError
from rmctl.spec.kinds import Poke

from .deferring import End
from .ends import end_of
from .observe import News, TaskRow
from .run_rows import RunRows
from .states import TaskState
from .waits import WaitRow
from .ways import left_out, why_left_out


class Ending(RunRows):
    """How tasks end during a pass."""

    def asks(self, news: Iterable[News]) -> list[tuple[int, int]]:
        """Jobs, with their tasks, of which `take` has to know what they returned."""
        answering = self.plan.answering
        if not answering:
            return []
        return [(item.row.job, item.row.pk) for item in news if item.row.name in answering and item.row.job is not None]

    def take(self, news: Iterable[News], returned: Mapping[int, Any]) -> None:
        """Let tasks follow their jobs."""
        for item in news:
            row = item.row
            if item.job_state == "running":
                row.move(TaskState.RUNNING, item.started_at or self.now)
                self._group_runs(row)
                continue
            row.started_at = row.started_at or item.started_at
            state, detail = end_of(item, self.plan.tasks[row.name])
            if state == TaskState.SUCCEEDED and row.name in self.plan.answering:
                self._answered(row, returned.get(row.job or 0), item.ended_at or self.now)
            else:
                self._end(row, state, detail, at=item.ended_at or self.now)

    def _answered(self, row: TaskRow, result: Any, at: datetime) -> None:
        """A task that decides the way, or a poke of a sensor, has returned."""
        task = self.plan.tasks[row.name]
        if isinstance(task.options, Poke):
            said = self.deferring.poked(row, task.options, self.waits.get(row.pk), result)
            if isinstance(said, End):
                self._end(row, said.state, said.detail, at=at)
            else:
                row.move(TaskState.DEFERRED, self.now, said)
                if row.index >= 0:
                    self.growing.moved(self.rows[row.name])
            return
        try:
            out = left_out(self.plan, task, result)
        except ArgumentError as error:
            self._end(row, TaskState.FAILED, str(error), at=at)
            return
        self.left_out |= dict.fromkeys(out, why_left_out(task, result))
        self._end(row, TaskState.SUCCEEDED, at=at)

    def decided(self) -> dict[str, int]:
        """The jobs of tasks that have decided the way, of those that are loaded."""
        return {
            name: row.job
            for name, row in self.rows.items()
            if row.state == TaskState.SUCCEEDED and row.job is not None and self.plan.tasks[name].decides
        }

    def decided_without_job(self) -> set[str]:
        """Those that have decided the way by an earlier result, and questions that were answered."""
        deciding = {name for name in self.plan.cached if self.plan.tasks[name].decides} | self.plan.asking
        rows = (self.rows[name] for name in deciding if name in self.rows)
        return {row.name for row in rows if row.state == TaskState.SUCCEEDED and row.job is None}

    def decide_again(self, returned: Mapping[int, Any], known: Mapping[str, Any]) -> None:
        """What was decided holds for tasks behind it that people let run again."""
        results = {name: returned.get(job) for name, job in self.decided().items()}
        for name, result in (results | dict(known)).items():
            try:
                out = left_out(self.plan, self.plan.tasks[name], result)
            except ArgumentError:
                continue  # Of another version, or marked: it decided nothing.
            waiting = [below for below in out if self.rows[below].state == TaskState.WAITING]
            self.left_out = dict.fromkeys(waiting, why_left_out(self.plan.tasks[name], result)) | self.left_out

    def look(self, due: Iterable[tuple[TaskRow, WaitRow]]) -> None:
        """Look at deferred tasks whose wait may be over."""
        for read, wait in due:
            row = self._row(read.name, read.index)
            if row.state != TaskState.DEFERRED:
                continue
            self.waits[row.pk] = wait
            task = self.plan.tasks[row.name]
            if isinstance(task.options, Poke):
                if wait.due_at is not None and wait.due_at <= self.now:
                    self.ready.append((row.name, row.index))
                continue
            end = self.deferring.look(row, task, wait)
            if end is not None:
                self._finish_wait(row, end)

    def _finish_wait(self, row: TaskRow, end: End) -> None:
        if end.result is not None:
            row.result = self.results[row.name, row.index] = end.result
        if row.name in self.plan.asking:
            task = self.plan.tasks[row.name]
            out = left_out(self.plan, task, end.result)
            self.left_out |= dict.fromkeys(out, why_left_out(task, end.result))
        self._end(row, end.state, end.detail)

    def _group_runs(self, row: TaskRow) -> None:
        if row.index < 0:
            return
        group = self.rows[row.name]
        self.growing.moved(group)
        if group.state == TaskState.QUEUED:
            group.move(TaskState.RUNNING, row.started_at or self.now)

    def _end(self, row: TaskRow, state: str, detail: str = "", *, at: datetime | None = None) -> None:
        row.move(state, at or self.now, detail)
        if row.name in self.plan.waiting and row.pk:
            self.deferring.changes.gone.append(row)
        if row.index < 0:
            self.finished[row.name] = EngineState(state)
            return
        group = self.rows[row.name]
        column = str(state) if state in (TaskState.SUCCEEDED, TaskState.SKIPPED) else "failed"
        setattr(group, column, getattr(group, column) + 1)
        group.changed = True
        self.growing.moved(group)
        self._end_group(group, at or self.now)

    def _end_group(self, group: TaskRow, at: datetime) -> None:
        if group.succeeded + group.failed + group.skipped < (group.width or 0):
            return
        ended = ((EngineState.FAILED, group.failed), (EngineState.SUCCEEDED, group.succeeded))
        states = [state for state, count in ended if count] or [EngineState.SKIPPED]
        detail = f"{group.failed} of {group.width} instances did not succeed." if group.failed else ""
        self._end(group, mapped_outcome(states), detail, at=at)
