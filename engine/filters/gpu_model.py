"""Cards at all, and of which models."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return f"a GPU of model {' or '.join(sorted(request.gpu_models))}" if request.gpu_models else "having a GPU"


@filter("gpu_model", _words, static=True, place=70)
def _gpu_model(fleet: Fleet, request: Request) -> Mask | None:
    if not request.gpu_count:
        return None
    mask = fleet.cards > 0
    if request.gpu_models:
        wanted = [code for code, model in enumerate(fleet.models) if model in request.gpu_models]
        mask = mask & np.isin(fleet.gpu_model, wanted)
    return mask
