"""Branches, conditions, setups and teardowns against a reference that rescans every task after every step."""

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.branches import left_out_by_branch, left_out_by_condition
from engine.dag import FAILING, RULES, TERMINAL, Graph, TaskNode, TaskState, advance, run_outcome
from tests.engine.test_dag import rescanned

S, F, K, U, W = (
    TaskState.SUCCEEDED,
    TaskState.FAILED,
    TaskState.SKIPPED,
    TaskState.UPSTREAM_FAILED,
    TaskState.WAITING,
)


def upstreams(graph: Graph, name: str) -> set[str]:
    """Everything before a task, by walking."""
    found: set[str] = set()
    for other in graph.tasks[name].upstream:
        found |= {other} | upstreams(graph, other)
    return found


def needed_setups(graph: Graph, name: str) -> set[str]:
    """Airflow: the setups before a task which have no teardown, or a teardown behind the task."""
    if graph.tasks[name].role == "teardown":
        return set()
    needed = set()
    for other in upstreams(graph, name):
        if graph.tasks[other].role == "setup":
            teardowns = [n for n, node in graph.tasks.items() if other in node.upstream and node.role == "teardown"]
            if not teardowns or any(name in upstreams(graph, teardown) for teardown in teardowns):
                needed.add(other)
    return needed


def decided(graph: Graph, states: dict[str, TaskState], name: str) -> str:
    """What a waiting task does now, looking at everything."""
    needed = [states[setup] for setup in needed_setups(graph, name)]
    if any(state in FAILING for state in needed):
        return "upstream_failed"
    if K in needed:
        return "skip"
    if any(state != S for state in needed):
        return "wait"
    node = graph.tasks[name]
    before = [states[other] for other in node.upstream]
    if node.rule != "all_done_setup_success":
        return rescanned(node.rule, before)
    setups = [states[other] for other in node.upstream if graph.tasks[other].role == "setup"]
    if any(state not in TERMINAL for state in before):
        return "wait"
    if not setups or S in setups:
        return "run"
    return "skip" if all(state == K for state in setups) else "upstream_failed"


def settled(graph: Graph, states: dict[str, TaskState]) -> dict[str, TaskState]:
    """Decide waiting tasks until nothing moves; those that may run are RUNNING."""
    while True:
        for name, state in states.items():
            if state == W and (what := decided(graph, states, name)) != "wait":
                states[name] = {"run": TaskState.RUNNING, "skip": K, "upstream_failed": U}[what]
                break
        else:
            return states


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    chance = random.Random(draw(st.integers(0, 2**32)))
    tasks: dict[str, TaskNode] = {}
    for number in range(chance.randint(2, 11)):
        known = list(tasks)
        before = chance.sample(known, min(len(known), chance.choice([0, 1, 1, 2, 3])))
        role = chance.choice(["", "", "", "", "setup", "teardown"])
        if role == "teardown":
            before += [n for n in known if tasks[n].role == "setup" and n not in before and chance.random() < 0.6]
        rule = "all_done_setup_success" if role == "teardown" else chance.choice(sorted(RULES))
        tasks[f"t{number}"] = TaskNode(rule, tuple(before), False, role, chance.random() < 0.3)
    return Graph(tasks)


@given(graphs(), st.integers(0, 2**32))
def test_every_decision_equals_a_full_rescan(graph: Graph, seed: int) -> None:
    chance = random.Random(seed)
    states = dict.fromkeys(graph.tasks, W)
    counters = graph.counters()
    for name in graph.initial:
        states[name] = TaskState.RUNNING
    running = list(graph.initial)
    while running:
        name = running.pop(chance.randrange(len(running)))
        state = chance.choice([S, S, S, F, K, TaskState.CANCELLED])
        below = graph.downstream[name]
        out: list[str] = []
        if state == S and below and chance.random() < 0.5:
            if chance.random() < 0.5:
                out = left_out_by_branch(graph, name, chance.sample(below, chance.randint(0, len(below))))
            else:
                out = left_out_by_condition(graph, name, direct=chance.random() < 0.5)
        out = [other for other in out if states[other] == W]
        expected = {**states, name: state, **dict.fromkeys(out, K)}
        settled(graph, expected)
        result = advance(graph, {name: state}, counters, out)
        states[name] = state
        for names, to in ((result.ready, TaskState.RUNNING), (result.skipped, K), (result.upstream_failed, U)):
            for other in names:
                assert states[other] == W, "decided twice"
                states[other] = to
        assert states == expected
        running += result.ready
    assert set(states.values()) <= TERMINAL
    assert run_outcome(graph, states) == ("failed" if any(states[n] in FAILING for n in leaves(graph)) else "succeeded")


def leaves(graph: Graph) -> list[str]:
    """Airflow's effective leaves: teardowns are not there, unless they fail the run."""

    def there(name: str) -> bool:
        return graph.tasks[name].role != "teardown" or graph.tasks[name].fails_run

    found = [n for n in graph.tasks if there(n) and not any(there(other) for other in graph.downstream[n])]
    return found or [name for name, below in graph.downstream.items() if not below]


def test_a_task_that_a_chosen_one_leads_to_is_kept() -> None:
    graph = Graph(
        {
            "pick": TaskNode(),
            "work": TaskNode(upstream=("pick",)),
            "other": TaskNode(upstream=("pick",)),
            "join": TaskNode("none_failed_min_one_success", ("pick", "work", "other")),
        }
    )
    assert left_out_by_branch(graph, "pick", ["work"]) == ["other"]
    assert left_out_by_branch(graph, "pick", []) == ["work", "other", "join"]
    result = advance(graph, {"pick": S}, {}, ["other"])
    assert (result.ready, result.skipped) == (["work"], ["other"])


def test_a_condition_leaves_teardowns_alone_and_direct_ones_leave_the_rest_to_the_rules() -> None:
    graph = Graph(
        {
            "setup": TaskNode(role="setup"),
            "check": TaskNode(upstream=("setup",)),
            "work": TaskNode(upstream=("check",)),
            "report": TaskNode("all_done", ("work",)),
            "down": TaskNode("all_done_setup_success", ("setup", "report"), role="teardown"),
        }
    )
    assert left_out_by_condition(graph, "check", direct=False) == ["work", "report"]
    assert left_out_by_condition(graph, "check", direct=True) == ["work"]
    counters = graph.counters()
    advance(graph, {"setup": S}, counters)
    assert advance(graph, {"check": S}, counters, ["work", "report"]).ready == ["down"]


def test_a_failed_setup_stops_even_what_runs_after_failures() -> None:
    graph = Graph(
        {
            "setup": TaskNode(role="setup"),
            "work": TaskNode("all_done", ("setup",)),
            "down": TaskNode("all_done_setup_success", ("setup", "work"), role="teardown"),
            "outside": TaskNode("all_done", ("down",)),
        }
    )
    result = advance(graph, {"setup": F}, {})
    assert (result.upstream_failed, result.ready) == (["work", "down"], ["outside"])
    assert graph.leaves == ("work", "outside")
