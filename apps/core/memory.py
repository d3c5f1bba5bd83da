"""How a long-lived process keeps the garbage collector out of its way."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def settle() -> None:
    """Call once everything is loaded: modules, models and routes are never garbage, so they are not looked at again.

    Without this each full collection walks some hundred thousand objects that live as long as the process, and
    a task's hop that meets one takes tens of milliseconds longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away from something short that makes very many objects.

    They are freed by their counts, so it should last until they are: to walk them takes a tenth of a cycle that looks
    at ten thousand jobs. Within each other, or in two threads at once, the first to end lets it come back, which does
    no harm.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
