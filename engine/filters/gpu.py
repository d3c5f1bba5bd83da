"""Free cards, or free shares of them."""

import numpy as np

from engine.amounts import amount_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Int16, Mask, Request


def _words(request: Request) -> str:
    if request.gpu_milli == 1000:
        return amount_text("gpu", request.gpu_count * 1000)
    share = f"{request.gpu_milli / 1000:g} of a GPU"
    return share if request.gpu_count == 1 else f"{share} on each of {request.gpu_count} cards"


@filter("gpu", _words, place=240)
def _gpu(fleet: Fleet, request: Request) -> Mask | None:
    if not request.gpu_count:
        return None
    return cards_with(fleet, request.gpu_milli) >= request.gpu_count


def cards_with(fleet: Fleet, milli: int) -> Int16:
    """For each node, on how many cards so many thousandths are free."""
    count: Int16 = (fleet.gpu_free >= milli).sum(axis=1, dtype=np.int16)
    return count
