"""How a long-lived process keeps the garbage collector out of its way."""

import gc


def settle() -> None:
    """Call once everything is loaded: modules, models and routes are never garbage, so they are not looked at again.

    Without this each full collection walks some hundred thousand objects that live as long as the process, and
    a task's hop that meets one takes tens of milliseconds longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
