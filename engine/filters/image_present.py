"""Nodes that have the image already."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return f"having the image {request.wanted.image} already" if request.wanted is not None else ""


@filter("image_present", _words, static=True, place=61)
def _image_present(fleet: Fleet, request: Request) -> Mask | None:
    if request.wanted is None or not request.wanted.image_needed or not request.wanted.image:
        return None
    return fleet.stores.has_image(request.wanted.image)
