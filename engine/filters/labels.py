"""Labels that have one of the values given."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return "the labels " + " and ".join(
        f"{label}={'|'.join(values)}" for label, values in sorted(request.labels.items())
    )


@filter("labels", _words, static=True, place=50)
def _labels(fleet: Fleet, request: Request) -> Mask | None:
    if not request.labels:
        return None
    mask = np.ones(len(fleet), dtype=np.bool_)
    for label, values in request.labels.items():
        mask &= fleet.label_mask(label, values)
    return mask
