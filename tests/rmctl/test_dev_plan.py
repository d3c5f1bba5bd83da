"""`rmctl dev` decides what runs as the portal does: held against the engine on random graphs."""

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.branches import left_out_by_branch, left_out_by_condition
from engine.dag import Graph, TaskState, advance, run_outcome
from rmctl.dev.plan import Plan
from tests.engine.test_branches import graphs

SKIPPED, UPSTREAM_FAILED = TaskState.SKIPPED, TaskState.UPSTREAM_FAILED


def definition_of(graph: Graph) -> dict[str, object]:
    def extra(name: str) -> dict[str, object]:
        node = graph.tasks[name]
        if node.role == "teardown":
            return {"teardown": {"fails_run": node.fails_run}}
        return {"setup": True} if node.role == "setup" else {}

    return {
        "tasks": [
            {"id": name, "trigger_rule": node.rule, "upstream": list(node.upstream), **extra(name)}
            for name, node in graph.tasks.items()
        ]
    }


@given(graphs(), st.integers(0, 2**32))
def test_the_same_tasks_run_and_end_as_in_the_portal(graph: Graph, seed: int) -> None:
    chance = random.Random(seed)
    plan, counters = Plan(definition_of(graph)), graph.counters()
    states: dict[str, TaskState] = {}
    ready = list(graph.initial)
    while (name := plan.next()) is not None:
        assert name in ready
        ready.remove(name)
        state = chance.choice([TaskState.SUCCEEDED] * 3 + [TaskState.FAILED, SKIPPED])
        out: list[str] = []
        match chance.choice(["", "", "branch", "condition"]) if state == TaskState.SUCCEEDED else "":
            case "branch":
                chosen = [below for below in graph.downstream[name] if chance.random() < 0.5]
                out = left_out_by_branch(graph, name, chosen)
                assert sorted(plan.left_out_by_branch(name, chosen)) == sorted(out)
            case "condition":
                direct = chance.random() < 0.5
                out = left_out_by_condition(graph, name, direct=direct)
                assert sorted(plan.left_out_by_condition(name, direct=direct)) == sorted(out)
        begun = {*states, *ready}
        followed = advance(graph, {name: state}, counters, [other for other in out if other not in begun])
        ready += followed.ready
        states[name] = state
        states |= dict.fromkeys(followed.skipped, SKIPPED) | dict.fromkeys(followed.upstream_failed, UPSTREAM_FAILED)
        plan.end(name, state.value, out)
        assert plan.states == {other: how.value for other, how in states.items()}
    assert not ready and len(states) == len(graph.tasks)
    assert plan.outcome() == run_outcome(graph, states)
