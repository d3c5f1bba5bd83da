"""The scheduling loop: observe → decide → apply."""

import time

from django.utils import timezone

from apps.core.loops import loop
from engine.cycle import decide

from .apply import apply
from .models import Cycle
from .observe import observe

# Grants of one cycle; more follow in the next pass at once, so that their jobs start meanwhile.
GRANTS_MAX = 200


@loop("schedule")
def schedule() -> bool:
    """One cycle; asks for another when its limit of grants was reached."""
    now = timezone.now()
    began = time.perf_counter()
    observed = observe(now)
    if observed is None:
        return False
    read = time.perf_counter()
    verdicts = decide(observed.snapshot, now=now.timestamp(), limit=GRANTS_MAX)
    cycle = Cycle(
        at=now,
        considered=len(verdicts),
        observe_ms=(read - began) * 1000,
        decide_ms=(time.perf_counter() - read) * 1000,
    )
    return apply(observed, verdicts, now, cycle) >= GRANTS_MAX
