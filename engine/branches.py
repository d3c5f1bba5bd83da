"""Which tasks a task that decides the way leaves out, by Airflow's rules.

A branch leaves out what is directly behind it and was not chosen, except what a chosen task leads to as well: where
`branch → join` and `branch → work → join`, choosing `work` keeps `join`. What is further behind follows from the
trigger rules. A condition that does not hold leaves out everything behind it. Teardowns are never left out: their
setup decides.
"""

from collections.abc import Iterable

from engine.dag import Graph


def left_out_by_branch(graph: Graph, name: str, chosen: Iterable[str]) -> list[str]:
    """Tasks directly behind the branch that are skipped when these are followed."""
    kept = graph.behind(chosen)
    return [below for below in graph.downstream[name] if below not in kept and _can_skip(graph, below)]


def left_out_by_condition(graph: Graph, name: str, *, direct: bool) -> list[str]:
    """Tasks that are skipped when the condition does not hold: all behind it, or only those directly behind it, from
    where the trigger rules say how it goes on."""
    reached = set(graph.downstream[name]) if direct else graph.behind(graph.downstream[name])
    return [below for below in graph.order if below in reached and _can_skip(graph, below)]


def _can_skip(graph: Graph, name: str) -> bool:
    return graph.tasks[name].role != "teardown"
