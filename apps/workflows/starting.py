"""What starts in one run: tasks that are ready get a job or begin to wait, and mapped ones their instances."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from engine.dag import TERMINAL
from rmctl.spec import ArgumentError, CompiledTask
from rmctl.spec.caching import Circumstances
from rmctl.spec.kinds import Poke
from rmctl.spec.templates import KEY

from .caching import Ask, Found
from .datasets import triggering_events
from .ends import of_sensor
from .expansion import require_room, require_same_width
from .following import Following
from .limits import Known
from .observe import TaskRow
from .past import Hold
from .results import INPUT_BYTES, size, usable
from .run_rows import Start
from .states import TaskState
from .unmade import Made
from .waits import merge_results


class Starting(Following):
    """How tasks that are ready begin, as far as there are places."""

    def grow(self, made: Mapping[str, Made]) -> dict[str, int]:
        """Take how far mapped tasks are that were asked for; those of which more is to be made are ready for it.

        Returns of how many instances that were cleared `restart` is to get the rows; a limited run has those already.
        """
        self.growing.take(made, self.rows, self.instances.values())
        self.ready += [(name, -1) for name in self.growing.incomplete(made)]
        return self.growing.cleared(made) if self.slots is None else {}

    def restart(self, rows: Iterable[TaskRow]) -> None:
        """Start these instances, which wait."""
        waiting = [self.instances.setdefault((row.name, row.index), row) for row in rows]
        waiting = [row for row in waiting if row.state == TaskState.WAITING]
        self.growing.restart(waiting)
        self.ready += [(row.name, row.index) for row in waiting]

    def wanted(self) -> tuple[set[str], bool]:
        """The tasks whose results `start` reads, and whether mapped ones are among them."""
        if self.slots == 0:
            return set(), False
        names = {reference for name, _ in self.ready for reference in self.plan.references[name]}
        return names, any(self.plan.tasks[name].mapped for name in names)

    def complete(self, results: dict[str, Any]) -> None:
        """What sensors returned, and what ended in this pass, among the results that were read."""
        for name in results.keys() & self.plan.answering:
            if self.plan.tasks[name].poked:
                results[name] = of_sensor(results[name], mapped=self.plan.tasks[name].mapped)
        if self.results:
            for name in {name for name, index in self.results if index >= 0 and results.get(name, ...) is None}:
                # Its list was made in this pass.
                results[name] = [None] * (self.rows[name].width or 0)
            merge_results(results, self.results, results.keys())

    def asks_past(self) -> dict[str, tuple[str, ...]]:
        """The ready tasks that depend on the run before, with the tasks of it that must have come to a good end."""
        past = self.plan.past
        if not past:
            return {}
        # A sensor has started with its first poke; the further ones ask no more.
        asking = (name for name, index in self.ready if index < 0 and name in past)
        return {name: past[name] for name in asking if self.rows[name].state == TaskState.WAITING}

    def hold(self, holds: Mapping[str, Hold]) -> None:
        """Take back those of the ready tasks that are held by the run before."""
        asked = self.asks_past()
        self.ready = [key for key in self.ready if key[1] >= 0 or key[0] not in holds]
        for name in asked:
            row = self.rows[name]
            row.detail = str(holds[name]) if name in holds else ""
            row.changed = True
            if name not in holds:
                self.let_go.append(row)
        self.held.update(holds)

    def ready_rows(self) -> list[TaskRow]:
        """What is ready and is, or may become, a job; mapped tasks that are to be expanded are not."""
        keys = (key for key in self.ready if key[1] >= 0 or not self.plan.tasks[key[0]].mapped)
        return [self._row(*key) for key in keys]

    def resume(self, rows: Iterable[TaskRow]) -> None:
        """Go on with tasks that were given the places that they waited for."""
        for row in rows:
            self.ready.append((row.name, row.index))
            self.limiting.resumed.add(row.pk)

    def limit(self, known: Mapping[int, Known], pools: Mapping[str, int]) -> None:
        """Take back those of the ready tasks that have to wait for places at limits over runs."""
        self.limiting.pools = pools
        # What was given its places may have been found by a review as well.
        self.ready = list(dict.fromkeys(self.ready))
        rows, asked = self.ready_rows(), len(self.limiting.asked)
        go_on = {(row.name, row.index) for row in self.limiting.choose(rows, known, self.slots)}
        stay = {(row.name, row.index) for row in rows} - go_on
        self.ready = [key for key in self.ready if key not in stay]
        for row in self.limiting.asked[asked:]:
            if row.state == TaskState.DEFERRED and row.pk in self.waits:
                self.deferring.stop(row, self.waits[row.pk])

    def start(self, results: Mapping[str, Any]) -> None:
        """Start what is ready, as far as there are places; what needs no job ends at once."""
        ready, self.ready = self.ready, []
        weights = self.weights
        if self.slots is not None and weights is not None:
            ready.sort(key=lambda key: -weights[key[0]])
        for position, (name, index) in enumerate(ready):
            if self.slots == 0:
                self.ready = ready[position:]
                return
            task = self.plan.tasks[name]
            row = self._row(name, index)
            if row.state in TERMINAL:
                continue  # Left out by a branch while it waited for a place.
            try:
                if row.index < 0 and row.width is not None:
                    self._make(row, task, results)
                    continue
                known = usable(task, self.plan.references[name], results)
                if task.kind == "empty":
                    row.started_at = self.now
                    self._end(row, TaskState.SUCCEEDED)
                elif index >= 0:
                    self._begin(row, task, task.resolve(known, self.run.params, item=self._item(row, task, known)))
                elif task.mapped:
                    self._expand(row, task, known)
                else:
                    self._begin(row, task, task.resolve(known, self.run.params))
            except ArgumentError as error:
                self._end(row, TaskState.FAILED, str(error))

    def _begin(self, row: TaskRow, task: CompiledTask, inputs: Mapping[str, Any]) -> None:
        """Let a task or an instance wait or get its job."""
        row.label = task.named(row.index, inputs, self.run.params)
        if task.jobless:
            detail = self.deferring.begin(row, task, inputs)
            row.move(TaskState.DEFERRED, self.now, detail)
            return
        if row.name in self.plan.limits:
            if pool := self.limiting.unknown_pool(row):
                raise ArgumentError(f"There is no slot pool {pool} any more: create it, then clear {row}.")
            if not self.limiting.looks_first(row):
                if not self.limiting.admits(row):
                    return
                row.detail = ""
        self._submit(row, task, inputs)
        if isinstance(task.options, Poke):
            self.deferring.poke(row, task.options, self.waits.get(row.pk) if row.pk else None)

    def _item(self, row: TaskRow, task: CompiledTask, results: Mapping[str, Any]) -> dict[str, Any]:
        expansion = self.growing.expansion(task, results, self.run.params)
        require_same_width(self.rows[row.name], expansion)
        return expansion.item(row.index)

    def _submit(self, row: TaskRow, task: CompiledTask, inputs: Mapping[str, Any]) -> None:
        if inputs and size(inputs) > INPUT_BYTES:
            raise ArgumentError(
                f"The arguments of {row} are larger than {INPUT_BYTES // 2**20} MiB: write files and pass their names."
            )
        if task.template is not None and task.template.needs.events:
            inputs = {**inputs, KEY: {**inputs[KEY], "events": self._events}}
        if task.cache is not None:
            self.caching.asks.append(Ask(row, task, inputs))
            return
        self._make_job(row, task, inputs)

    def _make_job(self, row: TaskRow, task: CompiledTask, inputs: Mapping[str, Any]) -> None:
        spec = task.job(
            inputs,
            run_id=self.run.pk,
            logical_time=self._logical_time,
            map_index=row.index if row.index >= 0 else None,
            params=self.run.params,
            interval=self._interval,
        )
        row.move(TaskState.QUEUED, self.now)
        self.starts.append(Start(row, spec))
        if self.slots is not None:
            self.slots -= 1

    def circumstances(self, row: TaskRow, stored: Mapping[str, str]) -> Circumstances:
        """What of the run may be part of a task's key in the cache."""
        return Circumstances(
            self.run.tenant_id, self.run.params, self._logical_time, self._interval, row.index, stored
        )

    def answer(self, ask: Ask, found: Found | None) -> None:
        """Let a task that asked the cache end with what was found, or run. It took no place while it asked: one that
        finds nothing and no place waits like any other."""
        row = ask.row
        if found is None:
            if self.slots == 0 or (row.name in self.plan.limits and not self.limiting.admits(row)):
                return
            self._make_job(row, ask.task, ask.inputs)
            self.caching.answered.append((ask, found))
            return
        self.caching.answered.append((ask, found))
        row.started_at, row.cached = self.now, True
        row.result = self.results[row.name, row.index] = found.result
        if row.index >= 0:
            group = self.rows[row.name]
            group.started_at = group.started_at or self.now
        if ask.task.decides:
            self._answered(row, found.result, self.now)
            row.detail = row.detail or str(found)
        else:
            self._end(row, TaskState.SUCCEEDED, str(found))

    @property
    def leaves_places(self) -> bool:
        """Whether places were kept for tasks that then had their results from the cache, so that others may begin."""
        return bool(self.slots) and any(found is not None for _, found in self.caching.answered)

    @cached_property
    def _events(self) -> dict[str, list[dict[str, Any]]]:
        """The events of datasets that triggered the run, by URI."""
        return triggering_events(self.run)

    def _expand(self, group: TaskRow, task: CompiledTask, results: Mapping[str, Any]) -> None:
        expansion = self.growing.expansion(task, results, self.run.params)
        if not expansion.width:
            self._end(group, TaskState.SKIPPED, "There was nothing to map over.")
            return
        require_room(task, expansion, task.resolve(results, self.run.params))
        group.width = expansion.width
        group.succeeded = group.failed = group.skipped = 0
        group.move(TaskState.DEFERRED if task.jobless else TaskState.QUEUED, self.now)
        self._make(group, task, results)

    def _make(self, group: TaskRow, task: CompiledTask, results: Mapping[str, Any]) -> None:
        """Make the next instances of a mapped task; what keeps all of them from running fails each."""
        fault, common, made = "", {}, []
        try:
            common = task.resolve(usable(task, self.plan.references[task.id], results), self.run.params)
        except ArgumentError as error:
            fault = str(error)
        for index in self.growing.due(group):
            row = TaskRow(0, self.run.pk, task.id, index, TaskState.WAITING, None, None, 0, 0, 0, "", None, None, None)
            self.instances[task.id, index] = row
            made.append(row)
            if self.slots == 0:
                continue
            try:
                if fault:
                    raise ArgumentError(fault)
                self._begin(row, task, {**common, **self._item(row, task, results)})
            except ArgumentError as error:
                self._end(row, TaskState.FAILED, str(error))
        self.made += made
        self.growing.made(group, made)
