"""What clearing and marking tasks of a run means for the others: pure, from the states alone.

While a run goes by itself, counters say what follows in steps of O(out-degree) (`engine.dag`). When people have
turned states back, the counters of what waits are made anew from all states, in topological order, so that each
rule sees everything that is decided above it, whatever the order in which it once came.
"""

from collections.abc import Iterable, Mapping

from engine.dag import FAILING, TERMINAL, Advance, Counters, Graph, TaskState, outcome

# What a rule alone may have ended, without anything of the task having run.
_DECIDED = {"skip": TaskState.SKIPPED, "upstream_failed": TaskState.UPSTREAM_FAILED}


def selected(
    graph: Graph, names: Iterable[str], *, upstream: bool = False, downstream: bool = False
) -> tuple[str, ...]:
    """The tasks named, with everything they depend on or everything behind them, in topological order.

    Raises ValueError for a task that the graph does not have.
    """
    named = set(names)
    unknown = sorted(named - graph.tasks.keys())
    if unknown:
        raise ValueError(f"unknown task {unknown[0]!r}")
    found = set(named)
    if upstream:
        found |= _reached(named, {name: node.upstream for name, node in graph.tasks.items()})
    if downstream:
        found |= _reached(named, graph.downstream)
    return tuple(name for name in graph.order if name in found)


def failing(graph: Graph, states: Mapping[str, TaskState]) -> tuple[str, ...]:
    """The tasks that failed, were cancelled, or never ran because of such a one, in topological order."""
    return tuple(name for name in graph.order if states.get(name) in FAILING)


def behind(graph: Graph, names: Iterable[str]) -> set[str]:
    """Everything that depends on one of the tasks; not the tasks themselves, unless on another of them."""
    return _reached(names, graph.downstream)


def _reached(names: Iterable[str], edges: Mapping[str, tuple[str, ...]]) -> set[str]:
    found: set[str] = set()
    pending = [below for name in names for below in edges[name]]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(edges[name])
    return found


def recounted(graph: Graph, states: Mapping[str, TaskState]) -> tuple[Advance, dict[str, Counters]]:
    """What follows from the states: the tasks that wait and may run, those that are skipped or fail with what is
    above them, all the way down; and the counters of every task that waits, these decisions counted.

    A task without a state waits. `changed` names every task that waited.
    """
    result = Advance()
    known = {name: states.get(name, TaskState.WAITING) for name in graph.tasks}
    counters: dict[str, Counters] = {}
    for name in graph.order:
        if known[name] != TaskState.WAITING:
            continue
        result.changed.add(name)
        counters[name] = count(graph, name, known)
        match decided(graph, name, counters[name], known):
            case "run":
                result.ready.append(name)
            case "skip":
                result.skipped.append(name)
                known[name] = TaskState.SKIPPED
            case "upstream_failed":
                result.upstream_failed.append(name)
                known[name] = TaskState.UPSTREAM_FAILED
    return result, counters


def count(graph: Graph, name: str, states: Mapping[str, TaskState]) -> Counters:
    """How the upstream tasks of one task ended so far, and how many of the setups that it needs have not succeeded."""
    counters = graph.fresh(name)
    for upstream in graph.tasks[name].upstream:
        if states[upstream] in TERMINAL:
            graph.count(counters, name, upstream, states[upstream])
    counters.pending = sum(states[setup] != TaskState.SUCCEEDED for setup in graph.needs.get(name, ()))
    return counters


def decided(graph: Graph, name: str, counters: Counters, states: Mapping[str, TaskState]) -> str:
    """What a task's rule says now, or, where a setup that it needs ended without success, what follows from that."""
    ended = [states[setup] for setup in graph.needs.get(name, ()) if states[setup] in TERMINAL]
    if any(state in FAILING for state in ended):
        return "upstream_failed"
    if TaskState.SKIPPED in ended:
        return "skip"
    return outcome(graph.tasks[name].rule, counters)


def followed(graph: Graph, names: Iterable[str], states: Mapping[str, TaskState]) -> tuple[str, ...]:
    """The tasks behind those named that ended by their rule alone, because of how those ended, in topological order:
    they have to be decided anew when these are marked otherwise.

    A skip that the states above do not explain (somebody marked it, a branch took another way) is not among them,
    nor is what depends on the named ones only through such a task or through one that ran.
    """
    moved = set(names)
    found = []
    for name in graph.order:
        node = graph.tasks[name]
        by_rule = states.get(name) in _DECIDED.values()
        if name in moved or not by_rule or moved.isdisjoint(node.upstream):
            continue
        if decided(graph, name, count(graph, name, states), states) in _DECIDED:
            moved.add(name)
            found.append(name)
    return tuple(found)
