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
    decided = time.perf_counter()
    applied = apply(observed, verdicts, now)
    if applied.granted or applied.refused:
        Cycle.objects.create(
            at=now,
            considered=len(verdicts),
            granted=applied.granted,
            refused=applied.refused,
            observe_ms=(read - began) * 1000,
            decide_ms=(decided - read) * 1000,
            apply_ms=(time.perf_counter() - decided) * 1000,
        )
    return applied.granted >= GRANTS_MAX
