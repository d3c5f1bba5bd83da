"""Labels compared by operators."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "expressions",
    lambda request: "the labels " + " and ".join(str(expression) for expression in request.expressions),
    static=True,
    place=51,
)
def _expressions(fleet: Fleet, request: Request) -> Mask | None:
    if not request.expressions:
        return None
    masks = [fleet.label_test(expression.label, expression.accepts) for expression in request.expressions]
    met: Mask = np.logical_and.reduce(masks, axis=0)
    return met
