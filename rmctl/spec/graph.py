"""What can be wrong between the tasks of a workflow: ids, edges, references, cycles.

It reads the raw definition and skips what has the wrong shape, so that its faults are reported together with
those of the fields.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import FieldError, did_you_mean, field_error
from .mapping import sources


@dataclass(slots=True)
class Node:
    """One task as far as the graph is concerned; `references` are (field, argument) pairs."""

    where: str
    id: str
    upstream: list[str]
    references: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    setups: list[str] = field(default_factory=list)

    def edges(self) -> dict[str, None]:
        """Upstream ids, given and implied by results, in order and once each."""
        implied = [a["result"] for _, a in self.references if isinstance(a.get("result"), str)]
        return dict.fromkeys([*self.upstream, *implied])


def nodes(tasks: Any) -> Iterator[Node]:
    """The tasks whose shape allows to look at them."""
    for index, task in enumerate(tasks if isinstance(tasks, list) else []):
        if not isinstance(task, Mapping) or not isinstance(task.get("id"), str):
            continue
        upstream = task.get("upstream")
        node = Node(
            f"tasks[{index}]",
            task["id"],
            [name for name in upstream if isinstance(name, str)] if isinstance(upstream, list) else [],
        )
        teardown = task.get("teardown")
        setups = teardown.get("setups") if isinstance(teardown, Mapping) else None
        if isinstance(setups, list):
            node.setups = [name for name in setups if isinstance(name, str)]
            node.upstream += node.setups
        arguments = task.get("arguments")
        given = arguments.items() if isinstance(arguments, Mapping) else ()
        named = [(f"arguments.{key}", value) for key, value in given]
        named += [(f"map.{field}", value) for field, value in sources(task.get("map"))]
        node.references += [(f"{node.where}.{name}", value) for name, value in named if isinstance(value, Mapping)]
        yield node


def faults(tasks: Any, params: Any) -> list[FieldError]:
    """Every fault between the tasks."""
    found = list(nodes(tasks))
    known: dict[str, Node] = {}
    errors = []
    for node in found:
        if node.id in known:
            message = (
                f"Task {node.id} is defined twice (also as {known[node.id].where}); each needs its own id."
            )
            errors.append(field_error(f"{node.where}.id", message, "duplicate_id"))
        known.setdefault(node.id, node)
    for node in found:
        errors += _reference_faults(node, known, params)
    if any(node.setups for node in found):
        errors += _teardown_faults(tasks, known)
    edges: dict[str, list[str]] = {}
    for node in found:
        edges.setdefault(node.id, []).extend(node.edges())
    cycle = find_cycle(edges)
    if cycle:
        shown = cycle if len(cycle) <= 12 else [*cycle[:6], "…", *cycle[-5:]]
        message = f"The tasks wait for each other: {' → '.join(shown)}. Remove one of these edges."
        errors.append(field_error(f"{known[cycle[0]].where}.upstream", message, "cycle"))
    return errors


def _teardown_faults(tasks: Any, known: Mapping[str, Node]) -> list[FieldError]:
    """What a teardown cleans up behind must be a setup."""
    shaped = [task for task in tasks if isinstance(task, Mapping) and isinstance(task.get("id"), str)]
    setups = {task["id"] for task in shaped if task.get("setup")}
    errors = []
    for node in known.values():
        errors += [
            field_error(
                f"{node.where}.teardown.setups",
                f"Task {node.id} cleans up behind {name}, which is not a setup; say setup: true there.",
                "not_a_setup",
            )
            for name in node.setups
            if name in known and name not in setups
        ]
    return errors


def _reference_faults(node: Node, known: Mapping[str, Node], params: Any) -> list[FieldError]:
    errors = []
    for position, name in enumerate(node.upstream):
        if name not in known:
            message = f"Task {node.id} waits for {name}, which does not exist.{did_you_mean(name, known)}"
            errors.append(field_error(f"{node.where}.upstream[{position}]", message, "unknown_upstream"))
    properties = params.get("properties") if isinstance(params, Mapping) else None
    properties = properties if isinstance(properties, Mapping) else {}
    for where, argument in node.references:
        task, param = argument.get("result"), argument.get("param")
        if isinstance(task, str) and task not in known:
            message = (
                f"Task {node.id} uses the result of {task}, which does not exist.{did_you_mean(task, known)}"
            )
            errors.append(field_error(where, message, "unknown_upstream"))
        if isinstance(param, str) and param not in properties:
            message = f"There is no parameter {param} in params.{did_you_mean(param, properties)}"
            errors.append(field_error(where, message, "unknown_param"))
    return errors


def find_cycle(upstream: Mapping[str, list[str]]) -> list[str] | None:
    """One cycle as `[a, b, a]` in the direction of flow, or None; unknown ids are ignored. Linear time."""
    waiting = {name: sum(1 for other in set(names) if other in upstream) for name, names in upstream.items()}
    downstream: dict[str, list[str]] = {name: [] for name in upstream}
    for name, names in upstream.items():
        for other in set(names):
            if other in upstream:
                downstream[other].append(name)
    ready = [name for name, count in waiting.items() if count == 0]
    while ready:
        name = ready.pop()
        del waiting[name]
        for other in downstream[name]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    if not waiting:
        return None
    # Everything left has an upstream that is left too: walking up must come back to where it has been.
    trail: dict[str, None] = {}
    name = min(waiting)
    while name not in trail:
        trail[name] = None
        name = min(other for other in upstream[name] if other in waiting)
    walked = list(trail)
    ring = walked[walked.index(name) :][::-1]
    start = ring.index(min(ring))
    ring = ring[start:] + ring[:start]
    return [*ring, ring[0]]
