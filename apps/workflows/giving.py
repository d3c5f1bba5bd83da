"""A pass of the advance loop with what follows from it: places that it left free, or asked for, are given out."""

from datetime import datetime

from . import claims
from .apply import Applied
from .apply import apply as apply_once
from .observe import Observed, add_granted


def apply(observed: Observed, now: datetime) -> Applied:
    """Advance all runs, then those of tasks that get free places, until nobody who waits can have any."""
    applied = apply_once(observed, now)
    tenants = observed.tenants | applied.tenants
    while tenants:
        given = Observed(work={})
        add_granted(given, claims.give_out(tenants))
        further = apply_once(given, now)
        applied.add(further)
        # Tasks that ended at once, as their arguments were wrong, leave their places; those behind them may ask.
        tenants = further.tenants
    return applied
