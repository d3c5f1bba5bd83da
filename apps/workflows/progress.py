"""Decide: one run during a pass, from what ended to what starts. It reads rows through a loader, writes nothing.

Tasks end and the engine's counters say what follows: tasks that are ready get a job, empty ones and those
that need none (nothing to map over, an argument that cannot be resolved) end at once, and so on until
nothing more ends.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from engine.branches import left_out_by_condition
from engine.clearing import recounted
from engine.dag import TERMINAL, Counters, advance, mapped_outcome, outcome
from engine.dag import TaskState as EngineState
from rmctl.spec import ArgumentError, CompiledTask
from rmctl.spec.caching import Circumstances
from rmctl.spec.kinds import Poke
from rmctl.spec.templates import KEY

from .caching import Ask, Caching, Found
from .datasets import triggering_events
from .deferring import Deferring, End
from .ends import end_of, of_sensor, why_left_out
from .expansion import Growing, require_room, require_same_width, wide
from .limits import Known, Limiting
from .models import Run
from .observe import News, TaskRow, Work
from .past import Hold
from .plans import Plan
from .results import INPUT_BYTES, size, usable
from .states import TaskState
from .unmade import Made
from .waits import WaitRow, merge_results
from .ways import left_out

Loader = Callable[[Mapping[int, Iterable[str]]], list[TaskRow]]
Ready = tuple[str, int]  # Name and instance; -1 for a task or a mapped task as a whole.


@dataclass(frozen=True, slots=True)
class Start:
    """A job to be made for a task or an instance."""

    row: TaskRow
    spec: dict[str, Any]


class Progress:
    """A run, the rows of it that this pass touches, and what becomes of them."""

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

    # What is known

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

    # What happened

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
        self.left_out |= dict.fromkeys(out, why_left_out(task))
        self._end(row, TaskState.SUCCEEDED, at=at)

    def decided(self) -> dict[str, int]:
        """The jobs of tasks that have decided the way, of those that are loaded."""
        return {
            name: row.job
            for name, row in self.rows.items()
            if row.state == TaskState.SUCCEEDED and row.job is not None and self.plan.tasks[name].decides
        }

    def decided_by_cache(self) -> set[str]:
        """Those that have decided the way by an earlier result, so without a job."""
        rows = (self.rows[name] for name in self.plan.cached if self.plan.tasks[name].decides and name in self.rows)
        return {row.name for row in rows if row.state == TaskState.SUCCEEDED and row.job is None}

    def decide_again(self, returned: Mapping[int, Any], cached: Mapping[str, Any]) -> None:
        """What was decided holds for tasks behind it that people let run again."""
        results = {name: returned.get(job) for name, job in self.decided().items()}
        for name, result in (results | dict(cached)).items():
            try:
                out = left_out(self.plan, self.plan.tasks[name], result)
            except ArgumentError:
                continue  # Of another version, or marked: it decided nothing.
            waiting = [below for below in out if self.rows[below].state == TaskState.WAITING]
            self.left_out = dict.fromkeys(waiting, why_left_out(self.plan.tasks[name])) | self.left_out

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
        if end.stops:
            out = left_out_by_condition(self.plan.graph, row.name, direct=False)
            self.left_out |= dict.fromkeys(out, f"{row}: {end.result['option']}.")
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

    # What follows

    def begin(self) -> None:
        """The run starts: everything that waits for nothing is ready."""
        self.ready += [(name, -1) for name in self.plan.graph.initial]

    def settle(self) -> None:
        """Count everything that ended; fills `ready` and ends what is skipped."""
        graph = self.plan.graph
        finished, self.finished = self.finished, {}
        first = {below for name in finished for below in graph.downstream[name]} | self.left_out.keys()
        first.update(inside for name in finished for inside in graph.scopes.get(name, ()))
        self._need(first)
        self._count_setups(first, finished)
        out = [name for name in self.left_out if self.rows[name].state == TaskState.WAITING]
        trial = {name: replace(self._counters[name]) for name in first}
        step = advance(graph, finished, trial, out)
        if trial.keys() - first:
            # Skips went further than what is loaded: again, with everything that they can reach.
            reached = graph.behind(first)
            self._need(reached)
            self._count_setups(reached, finished)
            trial = {name: replace(self._counters[name]) for name in reached}
            step = advance(graph, finished, trial, out)
        self._counters.update(trial)
        for name in step.changed:
            row, counters = self.rows[name], trial[name]
            if row.state == TaskState.WAITING:
                row.succeeded, row.failed, row.skipped = counters.succeeded, counters.failed, counters.skipped
                row.changed = True
        for name in step.skipped:
            self.rows[name].move(TaskState.SKIPPED, self.now, self.left_out.get(name))
        self.left_out = {}
        for name in step.upstream_failed:
            self.rows[name].move(TaskState.UPSTREAM_FAILED, self.now)
        self.ready += [(name, -1) for name in step.ready]

    def _count_setups(self, names: Collection[str], finished: Collection[str]) -> None:
        """How many of the setups that these tasks need have not succeeded, or only in this step."""
        needs = self.plan.graph.needs
        if not needs:
            return
        concerned = [name for name in names if name in needs and self._counters[name].total]
        self._need({setup for name in concerned for setup in needs[name]})
        for name in concerned:
            missing = [
                setup
                for setup in needs[name]
                if setup in finished or self.rows[setup].state != TaskState.SUCCEEDED
            ]
            self._counters[name].pending = len(missing)

    def review(self, instances: Mapping[str, Mapping[str, int]] | None) -> None:
        """Find what is ready from the rows alone, all of which are loaded: what waited for a free place, and,
        with the `instances` counted anew, whatever a run is missing that has come to rest or that people changed."""
        for row in self.rows.values():
            if row.state not in TERMINAL:
                self.growing.moved(row)
        if instances is not None:
            self._recount(instances)
            self._waiting_instances()
            return
        self._count_setups(self.plan.graph.order, self.finished)
        for name in self.plan.graph.order:
            row = self.rows[name]
            if row.state != TaskState.WAITING or (name, -1) in self.ready:
                continue
            match outcome(self.plan.graph.tasks[name].rule, self._counters[name]):
                case "run":
                    self.ready.append((name, -1))
                case "skip":
                    self._end(row, TaskState.SKIPPED)
                case "upstream_failed":
                    self._end(row, TaskState.UPSTREAM_FAILED)
        self._waiting_instances()

    def _waiting_instances(self) -> None:
        # Of wide tasks those that were cleared start little by little, as the others did (`restart`).
        waiting = [
            key
            for key, row in self.instances.items()
            if row.state == TaskState.WAITING and (self.slots is not None or not wide(self.rows[row.name]))
        ]
        self.ready += sorted(waiting, key=lambda key: (self.plan.position[key[0]], key[1]))

    def _recount(self, instances: Mapping[str, Mapping[str, int]]) -> None:
        """Count everything from the states; that includes what this pass has taken in."""
        fresh: dict[str, Counter[str]] = {name: Counter(counts) for name, counts in instances.items()}
        for row in self.instances.values():
            if row.changed and row.state in TERMINAL:
                fresh[row.name][str(row.state)] += 1
        for name, counts in fresh.items():
            group = self.rows[name]
            if group.state not in TERMINAL:
                group.succeeded, group.skipped = counts["succeeded"], counts["skipped"]
                group.failed = counts["failed"] + counts["cancelled"]
                group.changed = True
                self._end_group(group, self.now)
        for name in self.left_out:
            if self.rows[name].state == TaskState.WAITING:
                self.rows[name].move(TaskState.SKIPPED, self.now, self.left_out[name])
        self.left_out = {}
        states = {name: EngineState(row.state) for name, row in self.rows.items()}
        step, counters = recounted(self.plan.graph, states)
        self.finished.clear()
        self._counters.update(counters)
        for name, mine in counters.items():
            row = self.rows[name]
            row.succeeded, row.failed, row.skipped = mine.succeeded, mine.failed, mine.skipped
            row.changed = True
        for name in step.skipped:
            self.rows[name].move(TaskState.SKIPPED, self.now)
        for name in step.upstream_failed:
            self.rows[name].move(TaskState.UPSTREAM_FAILED, self.now)
        self.ready += [(name, -1) for name in step.ready]

    # What starts

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

    def _row(self, name: str, index: int) -> TaskRow:
        return self.rows[name] if index < 0 else self.instances[name, index]

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
