"""What follows in one run from tasks that have ended, or from its rows alone."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from engine.clearing import recounted
from engine.dag import TERMINAL, advance, outcome
from engine.dag import TaskState as EngineState

from .ending import Ending
from .expansion import wide
from .states import TaskState


class Following(Ending):
    """What the rules say of the tasks that wait."""

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
        self.ready += sorted(waiting, key=lambda key: (self.plan.graph.position[key[0]], key[1]))

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
