"""Readiness by counters against a reference that rescans every task after every step."""

import random
from itertools import pairwise, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dag import (
    FAILING,
    RULES,
    TERMINAL,
    Counters,
    Graph,
    TaskNode,
    TaskState,
    advance,
    mapped_outcome,
    outcome,
    run_outcome,
)

S, F, K, U = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED


def rescanned(rule: str, states: list[TaskState]) -> str:
    """A trigger rule as Airflow documents and decides it, from the states of all upstream tasks."""
    ended = [state for state in states if state in TERMINAL]
    done = len(ended) == len(states)
    good, skipped = ended.count(S), ended.count(K)
    bad = sum(state in FAILING for state in ended)
    ran_and_failed = bad - ended.count(U)
    if not states or rule == "always":
        return "run"
    decided = {
        "all_success": ("upstream_failed", bad > 0),
        "all_failed": ("skip", good > 0 or skipped > 0),
        "all_done": ("", False),
        "all_skipped": ("skip", good > 0 or bad > 0),
        "one_success": ("run", good > 0),
        "one_failed": ("run", bad > 0),
        "one_done": ("run", good > 0 or ran_and_failed > 0),
        "none_failed": ("upstream_failed", bad > 0),
        "none_failed_min_one_success": ("upstream_failed", bad > 0),
        "none_skipped": ("skip", skipped > 0),
        "all_done_setup_success": ("", False),  # Without a setup among them it is all_done.
    }[rule]
    if decided[1]:
        return decided[0]
    if rule == "all_success" and skipped:
        return "skip"
    if not done:
        return "wait"
    if rule == "one_success":
        return "skip" if skipped == len(states) else "upstream_failed"
    if rule in ("one_failed", "one_done"):
        return "skip"
    if rule == "none_failed_min_one_success" and skipped == len(states):
        return "skip"
    return "run"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_agrees_with_the_reference_for_all_upstream_states(rule: str) -> None:
    for size in range(4):
        graph = Graph({**{name: TaskNode() for name in "abc"}, "x": TaskNode(rule, tuple("abc"[:size]))})
        for states in product([TaskState.RUNNING, *sorted(TERMINAL)], repeat=size):
            counters = Counters(total=size)
            for name, state in zip("abc", states, strict=False):
                if state in TERMINAL:
                    graph.count(counters, "x", name, state)
            assert outcome(rule, counters) == rescanned(rule, list(states)), states


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 12))
    tasks = {}
    for number in range(count):
        before = draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set()
        tasks[f"t{number}"] = TaskNode(draw(st.sampled_from(sorted(RULES))), tuple(f"t{n}" for n in sorted(before)))
    names = draw(st.permutations(sorted(tasks)))
    return Graph({name: tasks[name] for name in names})


@given(graphs(), st.integers(0, 2**32), st.booleans())
def test_a_run_always_ends_and_every_decision_equals_a_full_rescan(graph: Graph, seed: int, batches: bool) -> None:
    chance = random.Random(seed)
    states = dict.fromkeys(graph.tasks, TaskState.WAITING)
    counters: dict[str, Counters] = {}
    running = list(graph.initial)
    assert set(running) == {name for name in graph.tasks if rescanned_task(graph, states, name) == "run"}
    for name in running:
        states[name] = TaskState.RUNNING
    while running:
        assert run_outcome(graph, states) == "running"
        chance.shuffle(running)
        finished = {}
        for _ in range(chance.randint(1, len(running)) if batches else 1):
            finished[running.pop()] = chance.choice([S, S, S, F, F, K, TaskState.CANCELLED])
        expected = settled(graph, states | finished)
        result = advance(graph, finished, counters)
        for name, state in finished.items():
            states[name] = state
        for names, state in (
            (result.ready, TaskState.RUNNING),
            (result.skipped, K),
            (result.upstream_failed, U),
        ):
            for name in names:
                assert states[name] == TaskState.WAITING, "decided twice"
                states[name] = state
        assert states == expected
        ended = set(finished) | set(result.skipped) | set(result.upstream_failed)
        assert result.changed == {below for name in ended for below in graph.downstream[name]}
        running.extend(result.ready)
    assert set(states.values()) <= TERMINAL
    failed = any(states[leaf] in FAILING for leaf in graph.leaves)
    assert run_outcome(graph, states) == ("failed" if failed else "succeeded")


def rescanned_task(graph: Graph, states: dict[str, TaskState], name: str) -> str:
    node = graph.tasks[name]
    return rescanned(node.rule, [states[upstream] for upstream in node.upstream])


def settled(graph: Graph, states: dict[str, TaskState]) -> dict[str, TaskState]:
    """Decide waiting tasks in topological order, each by everything above it."""
    for name in graph.order:
        if states[name] == TaskState.WAITING and (decision := rescanned_task(graph, states, name)) != "wait":
            states[name] = {"run": TaskState.RUNNING, "skip": K, "upstream_failed": U}[decision]
    return states


def test_a_failure_counts_before_a_skip_that_follows_from_the_same_end_however_tasks_and_edges_are_written() -> None:
    tasks = {
        "a": TaskNode(),
        "skipped": TaskNode("all_skipped", ("a",)),
        "failed": TaskNode("all_success", ("a",)),
        "further": TaskNode("all_success", ("failed",)),
        "join": TaskNode("all_success", ("skipped", "further")),
    }
    for names in permutations(tasks):
        result = advance(Graph({name: tasks[name] for name in names}), {"a": F}, {})
        assert (result.skipped, result.upstream_failed) == (["skipped"], ["failed", "further", "join"])
    for ends in ({"a": F, "b": K}, {"b": K, "a": F}):
        graph = Graph({"a": TaskNode(), "b": TaskNode(), "c": TaskNode("all_success", ("a", "b"))})
        assert advance(graph, ends, {}).upstream_failed == ["c"]


def test_a_long_chain_of_skips_is_followed_to_its_end() -> None:
    size = 5000
    tasks = {"t0": TaskNode()} | {f"t{n}": TaskNode("all_success", (f"t{n - 1}",)) for n in range(1, size)}
    graph = Graph(tasks)
    result = advance(graph, {"t0": K}, {})
    assert result.skipped == [f"t{n}" for n in range(1, size)]
    assert graph.critical_path() == size and len(graph.levels) == size


def test_one_failed_runs_at_the_first_failure_and_only_once() -> None:
    graph = Graph({"a": TaskNode(), "b": TaskNode(), "alarm": TaskNode("one_failed", ("a", "b"))})
    counters = graph.counters()
    assert advance(graph, {"a": F}, counters).ready == ["alarm"]
    assert advance(graph, {"b": F}, counters).ready == []


def test_one_done_does_not_count_what_never_ran() -> None:
    graph = Graph(
        {
            "a": TaskNode(),
            "b": TaskNode("all_success", ("a",)),
            "c": TaskNode(),
            "d": TaskNode("one_done", ("b", "c")),
        }
    )
    counters = graph.counters()
    first = advance(graph, {"a": F}, counters)
    assert (first.upstream_failed, first.ready, first.skipped) == (["b"], [], [])
    # Counters that were stored as three numbers and read back decide the same.
    stored = {n: Counters(c.succeeded, c.failed, c.skipped, c.total) for n, c in counters.items()}
    assert advance(graph, {"c": S}, stored).ready == ["d"]


def test_a_task_may_hang_on_skips_and_failures_of_one_call() -> None:
    graph = Graph({"a": TaskNode(), "b": TaskNode(), "c": TaskNode("none_failed", ("a", "b"))})
    result = advance(graph, {"a": K, "b": S}, graph.counters())
    assert (result.ready, result.changed) == (["c"], {"c"})


def test_the_graph_knows_its_shape() -> None:
    graph = Graph(
        {
            "join": TaskNode("all_success", ("left", "right")),
            "left": TaskNode("all_success", ("start",)),
            "right": TaskNode("all_success", ("start",), mapped=True),
            "start": TaskNode(),
            "watch": TaskNode("always", ("join",)),
        }
    )
    assert graph.roots == ("start",)
    assert set(graph.initial) == {"start", "watch"}
    assert graph.leaves == ("watch",)
    assert graph.levels == (("start",), ("left", "right"), ("join",), ("watch",))
    assert graph.downstream["start"] == ("left", "right")
    assert graph.critical_path() == 4
    assert graph.critical_path({"start": 1, "left": 5, "right": 2, "join": 1, "watch": 0}) == 7


@given(graphs())
def test_the_order_is_topological_and_levels_are_longest_paths(graph: Graph) -> None:
    assert sorted(graph.order) == sorted(graph.tasks)
    level = {name: depth for depth, names in enumerate(graph.levels) for name in names}
    for name, node in graph.tasks.items():
        assert level[name] == max((level[upstream] + 1 for upstream in node.upstream), default=0)
        assert all(graph.order.index(upstream) < graph.order.index(name) for upstream in node.upstream)
    assert graph.critical_path() == len(graph.levels)


@given(st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=3), max_size=8))
def test_a_cycle_is_found_exactly_when_there_is_one(raw: dict[int, set[int]]) -> None:
    upstream = {str(name): sorted(map(str, before)) for name, before in raw.items()}
    cycle = Graph.find_cycle(upstream)
    left = {name: {other for other in before if other in upstream} for name, before in upstream.items()}
    while free := [name for name, before in left.items() if not before]:
        left = {name: before - set(free) for name, before in left.items() if name not in free}
    assert (cycle is not None) == bool(left)
    if cycle is not None:
        assert cycle[0] == cycle[-1] and len(set(cycle)) == len(cycle) - 1
        for before, after in pairwise(cycle):
            assert before in upstream[after]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"a": TaskNode("sometimes")}, "task a has the unknown trigger rule 'sometimes'"),
        ({"a": TaskNode("all_done", ("b",))}, "task a has the unknown upstream task 'b'"),
        ({"a": TaskNode(), "b": TaskNode("all_done", ("a", "a"))}, "task b names an upstream task twice"),
        ({"a": TaskNode("all_done", ("a",))}, "a cycle: a → a"),
        ({"a": TaskNode("all_done", ("b",)), "b": TaskNode("all_done", ("a",))}, "a cycle: a → b → a"),
    ],
)
def test_a_bad_graph_is_refused_by_name(tasks: dict[str, TaskNode], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(tasks)


def test_tasks_that_are_unknown_or_have_not_ended_are_refused() -> None:
    graph = Graph({"a": TaskNode(), "b": TaskNode("all_done", ("a",))})
    counters = graph.counters()
    with pytest.raises(ValueError, match="unknown task 'z'"):
        advance(graph, {"a": S, "z": S}, counters)
    with pytest.raises(ValueError, match="task a has not ended"):
        advance(graph, {"a": TaskState.RUNNING}, counters)
    assert counters == graph.counters()
    with pytest.raises(ValueError, match="unknown trigger rule"):
        outcome("sometimes", Counters(total=1))


@pytest.mark.parametrize(
    ("states", "expected"),
    [([], K), ([K, K], K), ([S, K], S), ([S, F], F), ([U, S], F), ([K, TaskState.CANCELLED], F), ([S, S], S)],
)
def test_a_mapped_task_ends_as_its_instances_did(states: list[TaskState], expected: TaskState) -> None:
    assert mapped_outcome(states) == expected
