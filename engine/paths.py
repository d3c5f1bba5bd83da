"""The chain of tasks that decided when a run ended, or will decide it: the one in which saving time saves time.

Tasks are names; `upstream` and `downstream` are its edges both ways, `order` is topological. Times are seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """When a task began and ended; None where it has not."""

    begun: float | None
    ended: float | None


Edges = Mapping[str, Iterable[str]]


def behind(upstream: Edges, spans: Mapping[str, Span], last: str | None) -> list[str]:
    """What made `last` start when it did, first to last: before each task the one that it waited for longest, the
    upstream task that ended last (of those that ended together, the one that began first)."""
    path: list[str] = []
    while last is not None:
        path.append(last)
        last = _latest(upstream.get(last, ()), spans)
    return path[::-1]


def finished(upstream: Edges, spans: Mapping[str, Span]) -> list[str]:
    """The path of a run that has ended: to the task that ended last of all that did something."""
    return behind(upstream, spans, _latest((name for name, span in spans.items() if span.begun is not None), spans))


def ahead(order: Sequence[str], downstream: Edges, left: Mapping[str, float]) -> list[str]:
    """The longest way that is left to the end, by how long each task that has not ended still takes."""
    length: dict[str, float] = {}
    following: dict[str, str | None] = {}
    for task in reversed(order):
        if task in left:
            after = max((one for one in downstream.get(task, ()) if one in left), key=length.__getitem__, default=None)
            following[task] = after
            length[task] = left[task] + (length[after] if after is not None else 0.0)
    path: list[str] = []
    # The first one in the order: a task that takes no time stands before what waits for it.
    name: str | None = max((one for one in order if one in left), key=length.__getitem__, default=None)
    while name is not None:
        path.append(name)
        name = following[name]
    return path


def running(
    order: Sequence[str], upstream: Edges, downstream: Edges, spans: Mapping[str, Span], left: Mapping[str, float]
) -> list[str]:
    """The path of a run that goes on: the longest way that is left, behind what made it begin where it does."""
    to_come = ahead(order, downstream, left)
    if not to_come:
        return finished(upstream, spans)
    return [*behind(upstream, spans, to_come[0]), *to_come[1:]]


def _latest(names: Iterable[str], spans: Mapping[str, Span]) -> str | None:
    """The task that ended last."""
    found: str | None = None
    best = (float("-inf"), float("-inf"))
    for name in names:
        begun, ended = spans.get(name, (None, None))
        if ended is not None:
            key = (ended, -(ended if begun is None else begun))
            if found is None or key > best:
                found, best = name, key
    return found
