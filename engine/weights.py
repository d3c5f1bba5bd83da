"""How much a task weighs where tasks compete for places.

absolute        its own weight
downstream      its own weight and those of all tasks that depend on it (Airflow's default)
upstream        its own weight and those of all tasks that it depends on
critical_path   seconds of the longest path from its start to the end of the graph, by what its tasks usually take: the
                upward rank of HEFT (Topcuoglu, Hariri, Wu 2002) without costs of communication
"""

from collections.abc import Callable, Iterable, Mapping

from engine.dag import Graph

RULES = ("downstream", "upstream", "absolute", "critical_path")
# What a task takes of whose workflow nothing is known (seconds): then the number of tasks on a path decides.
UNKNOWN_SECONDS = 1.0


def summed(graph: Graph, own: Mapping[str, int], *, downstream: bool) -> dict[str, int]:
    """Each task's own weight and those of all behind it, or before it; each of them counts once, however many paths
    lead there."""
    position = graph.position
    alike: dict[int, int] = {}
    for name, weight in own.items():
        alike[weight] = alike.get(weight, 0) | 1 << position[name]
    reached: dict[str, int] = {}
    found: dict[str, int] = {}
    after: Callable[[str], Iterable[str]] = graph.downstream.__getitem__
    if not downstream:

        def after(name: str) -> Iterable[str]:
            return graph.tasks[name].upstream

    for name in reversed(graph.order) if downstream else graph.order:
        mine = 1 << position[name]
        for other in after(name):
            mine |= reached[other]
        reached[name] = mine
        found[name] = sum(weight * (mine & mask).bit_count() for weight, mask in alike.items())
    return found


def completed(names: Iterable[str], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of every task. One that is not given takes as long as the others do on average."""
    usual = sum(seconds.values()) / len(seconds) if seconds else UNKNOWN_SECONDS
    return {name: seconds.get(name, usual) for name in names}


def longest_remaining(graph: Graph, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of the longest path that begins with each task. A task that is not given takes as long as the others do
    on average."""
    own = completed(graph.order, seconds)
    found: dict[str, float] = {}
    for name in reversed(graph.order):
        behind = max((found[other] for other in graph.downstream[name]), default=0.0)
        found[name] = own[name] + behind
    return found


def weights(
    graph: Graph, own: Mapping[str, int], rules: Mapping[str, str], seconds: Mapping[str, float]
) -> dict[str, float]:
    """The weight of every task by its rule. Raises ValueError for an unknown rule."""
    used = set(rules.values())
    if unknown := used - set(RULES):
        raise ValueError(f"unknown weight rules: {', '.join(sorted(unknown))}")
    tables: dict[str, Mapping[str, float]] = {"absolute": own}
    for rule in used & {"downstream", "upstream"}:
        tables[rule] = summed(graph, own, downstream=rule == "downstream")
    if "critical_path" in used:
        tables["critical_path"] = longest_remaining(graph, seconds)
    return {name: float(tables[rule][name]) for name, rule in rules.items()}
