"""How much was in use over time: what a simulation or a recorded period looks like as a line."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine.outcomes import Ran


def edges_of(start: float, end: float, bins: int) -> list[float]:
    """The `bins` + 1 times that divide the period into equal parts."""
    return [float(at) for at in np.linspace(start, end, bins + 1)]


def used_over(
    runs: Iterable[Ran], edges: Sequence[float], capacity: Mapping[str, Sequence[float]]
) -> dict[str, list[float]]:
    """The mean part of each resource's capacity that was in use between each two edges.

    `capacity` is what there was of a resource in each bin, in amounts times seconds; without any the part is 0.
    """
    times = np.asarray(edges)
    busy = {resource: np.zeros(len(edges) - 1) for resource in capacity}
    for item in runs:
        for began, ended, _ in item.spans:
            inside = np.clip(np.minimum(ended, times[1:]) - np.maximum(began, times[:-1]), 0.0, None)
            for resource, amounts in busy.items():
                amounts += item.amounts.get(resource, 0) * inside
    parts = {}
    for resource, amounts in busy.items():
        whole = np.asarray(capacity[resource], dtype=np.float64)
        parts[resource] = [float(part) for part in np.divide(amounts, whole, out=np.zeros_like(whole), where=whole > 0)]
    return parts


def last_end(runs: Iterable[Ran], start: float, end: float, least: float) -> float:
    """When the last of the runs ends, at least `least` seconds after the start, at most the end of the period."""
    latest = max((span[1] for item in runs for span in item.spans), default=start)
    return min(end, max(latest, start + least))
