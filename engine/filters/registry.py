"""Filters by name: which nodes can take a member."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

from engine.fleet import Fleet, Mask, Request

Check = Callable[[Fleet, Request], Mask | None]
Words = Callable[[Request], str]


@dataclass(frozen=True, slots=True)
class Filter:
    """A named test; `words` says for people what it asks for."""

    name: str
    check: Check
    static: bool
    words: Words
    place: int


FILTERS: dict[str, Filter] = {}


def filter(name: str, words: Words, *, place: int, static: bool = False) -> Callable[[Check], Check]:
    """Register a filter under a new name.

    Static filters are asked first; among themselves in the order of `place`, then of the name. A static filter
    may look only at what `Request.static_key` has.
    """

    def register(check: Check) -> Check:
        if name in FILTERS:
            raise ValueError(f"there is a filter {name!r} already")
        FILTERS[name] = Filter(name, check, static, words, place)
        ordered = sorted(FILTERS.values(), key=lambda item: (not item.static, item.place, item.name))
        FILTERS.clear()
        FILTERS.update((item.name, item) for item in ordered)
        return check

    return register


def static_filters() -> list[Filter]:
    """The filters on what does not change, in order."""
    return [item for item in FILTERS.values() if item.static]


def capacity_filters() -> list[Filter]:
    """The filters on what is free, in order."""
    return [item for item in FILTERS.values() if not item.static]


def load(package: str, path: list[str]) -> None:
    """Import every module of a package, so that what they register is there."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
