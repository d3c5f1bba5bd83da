"""Readiness of the tasks of a run by counters: O(out-degree) for each task that ends.

A task waits until its trigger rule is decided by how many of its upstream tasks succeeded, failed or were
skipped. Every rule is decided as early as its counters allow, and a decision never comes twice: it falls in
the one step in which the outcome stops being `wait`.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heappop, heappush

RULES = frozenset(
    {
        "all_success", "all_failed", "all_done", "all_skipped", "one_success", "one_failed", "one_done",
        "none_failed", "none_failed_min_one_success", "none_skipped", "always", "all_done_setup_success",
    }
)  # fmt: skip


class TaskState(StrEnum):
    """States of a task, as the workflows app stores them."""

    WAITING = "waiting"
    DEFERRED = "deferred"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset(
    {
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.SKIPPED,
        TaskState.UPSTREAM_FAILED,
        TaskState.CANCELLED,
    }
)
# A cancelled task did not do its work, so for those behind it that is a failure.
FAILING = frozenset({TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class TaskNode:
    """A task as the graph sees it. `role` is `setup`, `teardown` or empty; the failure of a teardown fails the run
    only with `fails_run`."""

    rule: str = "all_success"
    upstream: tuple[str, ...] = ()
    mapped: bool = False
    role: str = ""
    fails_run: bool = False


@dataclass(slots=True)
class Counters:
    """How the upstream tasks of a task ended so far; a mapped upstream counts once, when all of it ended. `pending` is
    how many of the setups that it needs have not succeeded yet."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    total: int = 0
    pending: int = 0

    @property
    def done(self) -> int:
        """Upstream tasks that have ended."""
        return self.succeeded + self.failed + self.skipped

    def count(self, state: TaskState, rule: str) -> None:
        """Count one more upstream task, which ended in this state, for a task with this rule."""
        if state == TaskState.SUCCEEDED:
            self.succeeded += 1
        elif state == TaskState.SKIPPED or (state == TaskState.UPSTREAM_FAILED and rule == "one_done"):
            # `one_done` asks whether one has run: what failed further up counts for it like what was skipped.
            self.skipped += 1
        else:
            self.failed += 1


@dataclass(slots=True)
class Advance:
    """What follows from tasks that ended. `changed` names every task whose counters moved."""

    ready: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    upstream_failed: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)


class Graph:
    """The tasks of one workflow version and their edges; immutable."""

    __slots__ = (
        "downstream", "initial", "leaves", "levels", "needs", "order", "position", "roots", "scopes", "setups", "tasks",
    )  # fmt: skip

    def __init__(self, tasks: Mapping[str, TaskNode]) -> None:
        """Raises ValueError naming the task for an unknown rule or upstream, a repeated edge, or a cycle."""
        self.tasks = dict(tasks)
        downstream: dict[str, list[str]] = {name: [] for name in self.tasks}
        for name, node in self.tasks.items():
            if node.rule not in RULES:
                raise ValueError(f"task {name} has the unknown trigger rule {node.rule!r}")
            if len(set(node.upstream)) != len(node.upstream):
                raise ValueError(f"task {name} names an upstream task twice")
            for upstream in node.upstream:
                if upstream not in downstream:
                    raise ValueError(f"task {name} has the unknown upstream task {upstream!r}")
                downstream[upstream].append(name)
        cycle = self.find_cycle({name: node.upstream for name, node in self.tasks.items()})
        if cycle:
            raise ValueError(f"the tasks form a cycle: {' → '.join(cycle)}")
        self.downstream: dict[str, tuple[str, ...]] = {name: tuple(below) for name, below in downstream.items()}
        self.roots = tuple(name for name, node in self.tasks.items() if not node.upstream)
        # The setups that each task has directly before it, where there are any.
        self.setups = {
            name: found
            for name, node in self.tasks.items()
            if (found := frozenset(other for other in node.upstream if self.tasks[other].role == "setup"))
        }
        self.scopes = {name: self._scope(name) for name, node in self.tasks.items() if node.role == "setup"}
        # The same the other way round: the setups without which a task does not run.
        self.needs: dict[str, tuple[str, ...]] = {}
        for setup, inside in self.scopes.items():
            for name in inside:
                self.needs[name] = (*self.needs.get(name, ()), setup)
        # Tasks that start at once: those without upstream, and those with the rule `always`.
        self.initial = tuple(
            name
            for name, node in self.tasks.items()
            if not node.upstream or (node.rule == "always" and name not in self.needs)
        )
        self.leaves = self._leaves()
        self.levels, self.order = self._layers()
        self.position = {name: position for position, name in enumerate(self.order)}

    def behind(self, names: Iterable[str]) -> set[str]:
        """The tasks given and everything that depends on them."""
        return _reached(names, self.downstream)

    def _scope(self, setup: str) -> frozenset[str]:
        """The tasks that need this setup: those behind it, up to its teardowns if it has some."""
        behind = self.behind([setup])
        teardowns = [name for name in self.downstream[setup] if self.tasks[name].role == "teardown"]
        if teardowns:
            behind &= _reached(teardowns, {name: node.upstream for name, node in self.tasks.items()})
        return frozenset(name for name in behind if name != setup and self.tasks[name].role != "teardown")

    def _leaves(self) -> tuple[str, ...]:
        """The tasks that decide how a run ends: those with nothing behind them, as if no teardown were there, except
        the teardowns that fail their run; all that end the graph if there are only teardowns."""
        counts = {name: node.role != "teardown" or node.fails_run for name, node in self.tasks.items()}
        leaves = [name for name in counts if counts[name] and not any(counts[n] for n in self.downstream[name])]
        return tuple(leaves or (name for name, below in self.downstream.items() if not below))

    def count(self, counters: Counters, name: str, upstream: str, state: TaskState) -> None:
        """Count for `name` that its upstream task ended in this state."""
        rule = self.tasks[name].rule
        if rule == "all_done_setup_success" and upstream not in self.setups.get(name, ()):
            # How the work ended is no matter to what cleans up behind it: only the setups speak, if there are any.
            state = TaskState.SKIPPED if name in self.setups else TaskState.SUCCEEDED
        counters.count(state, rule)

    def _layers(self) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """Tasks by the length of the longest path to them; all of them, level after level, in one order."""
        missing = {name: len(node.upstream) for name, node in self.tasks.items()}
        levels: list[tuple[str, ...]] = []
        current = list(self.roots)
        while current:
            levels.append(tuple(current))
            following = []
            for name in current:
                for below in self.downstream[name]:
                    missing[below] -= 1
                    if not missing[below]:
                        following.append(below)
            current = following
        return tuple(levels), tuple(name for level in levels for name in level)

    @staticmethod
    def find_cycle(upstream: Mapping[str, Iterable[str]]) -> list[str] | None:
        """One cycle along the edges, its first task repeated at the end, or None. Ignores unknown names."""
        downstream: dict[str, list[str]] = {name: [] for name in upstream}
        for name, before in upstream.items():
            for other in before:
                if other in downstream:
                    downstream[other].append(name)
        done: set[str] = set()
        for start, first in downstream.items():
            if start in done:
                continue
            path, on_path = [start], {start}
            pending = [iter(first)]
            while pending:
                following = next(pending[-1], None)
                if following is None:
                    pending.pop()
                    done.add(path[-1])
                    on_path.discard(path.pop())
                elif following in on_path:
                    return [*path[path.index(following) :], following]
                elif following not in done:
                    path.append(following)
                    on_path.add(following)
                    pending.append(iter(downstream[following]))
        return None

    def critical_path(self, weights: Mapping[str, float] | None = None) -> float:
        """The largest sum of weights (1 if not given) along a path: the longest chain."""
        longest: dict[str, float] = {}
        for name in self.order:
            before = max((longest[upstream] for upstream in self.tasks[name].upstream), default=0.0)
            longest[name] = before + (1.0 if weights is None else weights.get(name, 1.0))
        return max(longest.values(), default=0.0)

    def counters(self) -> dict[str, Counters]:
        """Fresh counters for a run in which nothing has ended."""
        return {name: self.fresh(name) for name in self.tasks}

    def fresh(self, name: str) -> Counters:
        """Counters of a task before anything has ended."""
        return Counters(total=len(self.tasks[name].upstream), pending=len(self.needs.get(name, ())))


def outcome(rule: str, counters: Counters) -> str:
    """What a rule says now: `wait`, `run`, `skip` or `upstream_failed`; ValueError for an unknown rule."""
    succeeded, failed, skipped, total = counters.succeeded, counters.failed, counters.skipped, counters.total
    if rule not in RULES:
        raise ValueError(f"unknown trigger rule {rule!r}")
    if counters.pending:
        return "wait"
    if rule == "always" or total == 0:
        return "run"
    done = counters.done >= total
    match rule:
        case "all_success":
            return "upstream_failed" if failed else "skip" if skipped else "run" if done else "wait"
        case "all_failed":
            return "skip" if succeeded or skipped else "run" if done else "wait"
        case "all_done":
            return "run" if done else "wait"
        case "all_skipped":
            return "skip" if succeeded or failed else "run" if done else "wait"
        case "one_success":
            if succeeded:
                return "run"
            return "wait" if not done else "skip" if skipped == total else "upstream_failed"
        case "one_failed":
            return "run" if failed else "skip" if done else "wait"
        case "one_done":
            return "run" if succeeded or failed else "skip" if done else "wait"
        case "none_failed":
            return "upstream_failed" if failed else "run" if done else "wait"
        case "all_done_setup_success":
            if not done:
                return "wait"
            return "run" if succeeded else "upstream_failed" if failed else "skip"
        case "none_failed_min_one_success":
            if failed:
                return "upstream_failed"
            return "wait" if not done else "skip" if skipped == total else "run"
        case _:  # none_skipped
            return "skip" if skipped else "run" if done else "wait"


def mapped_outcome(states: Sequence[TaskState]) -> TaskState:
    """How a mapped task ended whose instances all ended: failed if any did, skipped if all were."""
    if any(state in FAILING for state in states):
        return TaskState.FAILED
    if all(state == TaskState.SKIPPED for state in states):
        return TaskState.SKIPPED
    return TaskState.SUCCEEDED


def advance(
    graph: Graph,
    finished: Mapping[str, TaskState],
    counters: MutableMapping[str, Counters],
    skip: Iterable[str] = (),
) -> Advance:
    """Count tasks that ended into those behind them, and follow skips and upstream failures all the way.

    `counters` is changed in place; a task that is not in it starts from zero. Each ended task must be given
    exactly once in the life of a run. `skip` names tasks, none of which has started, that a branch has decided
    against: they are skipped whatever their rule says. Tasks in the scope of a setup wait for it, and are decided
    when it did not succeed. What follows is decided in topological order, so that each rule sees everything that is
    decided above it and the order in which tasks and edges are written says nothing. Raises ValueError for an unknown
    task or one that has not ended.
    """
    for name, state in finished.items():
        if name not in graph.tasks:
            raise ValueError(f"unknown task {name!r}")
        if state not in TERMINAL:
            raise ValueError(f"task {name} has not ended: it is {state}")
    result = Advance()
    ends = {name: TaskState(state) for name, state in finished.items()}
    # What the rules said before of the tasks whose counters move, and how setups end those that need them.
    before: dict[str, str] = {}
    without: dict[str, TaskState] = {}
    pending = [(graph.position[name], name) for name in ends]

    def touch(name: str) -> Counters:
        mine = _known(graph, counters, name)
        if name not in before:
            before[name] = outcome(graph.tasks[name].rule, mine)
            if name not in ends:
                heappush(pending, (graph.position[name], name))
        return mine

    def end(name: str, state: TaskState) -> None:
        (result.skipped if state == TaskState.SKIPPED else result.upstream_failed).append(name)
        ends[name] = state

    def end_without_rule(name: str, state: TaskState) -> None:
        counters[name] = Counters()  # Nothing to wait for any more, or its rule would decide it again.
        end(name, state)

    for name in skip:
        end_without_rule(name, TaskState.SKIPPED)
        pending.append((graph.position[name], name))
    heapify(pending)
    while pending:
        _, name = heappop(pending)
        if name not in ends:
            if before[name] != "wait":
                continue
            if name in without:
                end_without_rule(name, without[name])
            else:
                match outcome(graph.tasks[name].rule, counters[name]):
                    case "run":
                        result.ready.append(name)
                    case "skip":
                        end(name, TaskState.SKIPPED)
                    case "upstream_failed":
                        end(name, TaskState.UPSTREAM_FAILED)
        if name not in ends:
            continue
        state = ends[name]
        for inside in graph.scopes.get(name, ()):
            mine = touch(inside)
            if state == TaskState.SUCCEEDED:
                mine.pending = max(0, mine.pending - 1)
            elif state != TaskState.SKIPPED:
                without[inside] = TaskState.UPSTREAM_FAILED
            else:
                without.setdefault(inside, TaskState.SKIPPED)
        for below in graph.downstream[name]:
            graph.count(touch(below), below, name, state)
            result.changed.add(below)
    return result


def _known(graph: Graph, counters: MutableMapping[str, Counters], name: str) -> Counters:
    if name not in counters:
        counters[name] = graph.fresh(name)
    return counters[name]


def _reached(names: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """The names and everything that the edges lead to from there."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(edges[name])
    return found


def run_outcome(graph: Graph, states: Mapping[str, TaskState]) -> str:
    """`running` while any task has not ended; then `failed` if any leaf failed, otherwise `succeeded`."""
    if any(states.get(name, TaskState.WAITING) not in TERMINAL for name in graph.tasks):
        return "running"
    return "failed" if any(states[name] in FAILING for name in graph.leaves) else "succeeded"
