"""Clears and marks in the middle of a run and after it, against a reference that knows no counters."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clearing import behind, count, failing, followed, recounted, selected
from engine.dag import FAILING, TERMINAL, Counters, Graph, TaskNode, TaskState, advance, outcome, run_outcome
from tests.engine.test_dag import graphs, rescanned

S, F, K, U = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED
W, R, C = TaskState.WAITING, TaskState.RUNNING, TaskState.CANCELLED
DECIDED = {"run": R, "skip": K, "upstream_failed": U}


def rescan(graph: Graph, states: dict[str, TaskState]) -> None:
    """Decide what waits from the states above it, task by task from the top, as the rules are documented."""
    for name in graph.order:
        if states[name] == W:
            node = graph.tasks[name]
            states[name] = DECIDED.get(rescanned(node.rule, [states[above] for above in node.upstream]), W)


class Run:
    """A run as the loop moves it: counters while it goes by itself, a recount after people changed it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.states = dict.fromkeys(graph.tasks, W)
        self.counters: dict[str, Counters] = {}
        for name in graph.initial:
            self.states[name] = R

    def end(self, name: str, state: TaskState) -> None:
        """One job ended."""
        self.states[name] = state
        waiting = {below: self.counters.get(below) for below in self.graph.tasks if self.states[below] == W}
        known = {
            below: (waiting[below] or Counters(total=len(self.graph.tasks[below].upstream)))
            if below in waiting
            else Counters()
            for below in self.graph.tasks
        }
        step = advance(self.graph, {name: state}, known)
        self.counters = {below: known[below] for below in waiting}
        for names, to in ((step.ready, R), (step.skipped, K), (step.upstream_failed, U)):
            for below in names:
                assert self.states[below] == W, "decided twice"
                self.states[below] = to

    def change(self, to: dict[str, TaskState]) -> None:
        """People cleared or marked tasks."""
        self.states.update(to)
        step, self.counters = recounted(self.graph, self.states)
        assert step.changed == {name for name, state in self.states.items() if state == W}
        for names, target in ((step.ready, R), (step.skipped, K), (step.upstream_failed, U)):
            for name in names:
                assert self.states[name] == W
                self.states[name] = target

    def running(self) -> list[str]:
        return [name for name in self.graph.order if self.states[name] == R]


@given(graphs(), st.integers(0, 2**32))
def test_clears_at_any_moment_agree_with_a_rescan_of_everything(graph: Graph, seed: int) -> None:
    chance = random.Random(seed)
    run = Run(graph)
    clears = chance.randint(1, 4)
    while run.running() or clears:
        if clears and (not run.running() or chance.random() < 0.2):
            clears -= 1
            named = chance.sample(sorted(graph.tasks), chance.randint(1, len(graph.tasks)))
            chosen = selected(graph, named, upstream=chance.random() < 0.3, downstream=chance.random() < 0.6)
            expected = {**run.states, **dict.fromkeys(chosen, W)}
            rescan(graph, expected)
            run.change(dict.fromkeys(chosen, W))
            assert run.states == expected
        else:
            name = chance.choice(run.running())
            expected = {**run.states, name: chance.choice([S, S, S, F, C, K])}
            ended = expected[name]
            cascade(graph, expected, name)
            run.end(name, ended)
            assert run.states == expected
        for name, mine in run.counters.items():
            if run.states[name] == W:
                assert mine == count(graph, name, run.states), name
                assert outcome(graph.tasks[name].rule, mine) == "wait"
    assert set(run.states.values()) <= TERMINAL
    failed = any(run.states[leaf] in FAILING for leaf in graph.leaves)
    assert run_outcome(graph, run.states) == ("failed" if failed else "succeeded")


def cascade(graph: Graph, states: dict[str, TaskState], name: str) -> None:
    """What follows from one end, nearest first: each task decides by what had been handed on to it until then."""
    fresh = [name]
    while fresh:
        current = fresh.pop(0)
        for below in graph.downstream[current]:
            node = graph.tasks[below]
            seen = [W if above in fresh else states[above] for above in node.upstream]
            if states[below] == W:
                states[below] = DECIDED.get(rescanned(node.rule, seen), W)
                if states[below] in (K, U):
                    fresh.append(below)


@given(graphs(), st.integers(0, 2**32))
def test_a_mark_moves_what_its_rules_alone_had_ended_and_nothing_else(graph: Graph, seed: int) -> None:
    chance = random.Random(seed)
    states = dict.fromkeys(graph.tasks, W)
    rescan(graph, states)
    while running := [name for name in graph.order if states[name] == R]:
        states[chance.choice(running)] = chance.choice([S, F, F, K])
        rescan(graph, states)
    name, to = chance.choice(sorted(graph.tasks)), chance.choice([S, F, K])
    if states[name] in (S, to):
        return
    again = followed(graph, [name], states)
    expected: list[str] = []
    for below in graph.order:
        node = graph.tasks[below]
        above = [states[other] for other in node.upstream]
        explained = states[below] in (K, U) and rescanned(node.rule, above) in ("skip", "upstream_failed")
        if below != name and explained and {name, *expected} & set(node.upstream):
            expected.append(below)
    assert list(again) == expected
    assert set(again) <= behind(graph, [name])
    after = {**states, name: to, **dict.fromkeys(again, W)}
    step, _ = recounted(graph, after)
    rescan(graph, after)
    assert {other for other in graph.tasks if after[other] == R} == set(step.ready)
    assert all(after[other] == states[other] for other in graph.tasks if other not in (name, *again))


def chain(*rules: str) -> Graph:
    return Graph(
        {f"t{n}": TaskNode(rule, (f"t{n - 1}",) if n else ()) for n, rule in enumerate(rules)}
    )


def test_what_is_selected_comes_in_the_order_of_the_work() -> None:
    graph = chain("all_success", "all_success", "all_success")
    assert selected(graph, ["t2", "t0"]) == ("t0", "t2")
    assert selected(graph, ["t1"], upstream=True, downstream=True) == ("t0", "t1", "t2")
    with pytest.raises(ValueError, match="unknown task 'x'"):
        selected(graph, ["x"])


def test_failing_tasks_are_those_that_did_not_do_their_work() -> None:
    graph = chain("all_success", "all_done", "all_done", "all_done")
    assert failing(graph, {"t0": F, "t1": U, "t2": C, "t3": K}) == ("t0", "t1", "t2")


def test_a_skip_that_the_states_do_not_explain_stays() -> None:
    graph = chain("all_success", "none_failed", "none_failed")
    # Somebody marked t1, or a branch took another way: its rule would have let it run.
    assert followed(graph, ["t0"], {"t0": K, "t1": K, "t2": K}) == ()
    assert followed(graph, ["t0"], {"t0": F, "t1": U, "t2": U}) == ("t1", "t2")
