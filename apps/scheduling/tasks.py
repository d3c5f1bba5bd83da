"""The scheduling loop: observe → decide → apply."""

import logging
import time
from datetime import timedelta

from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from apps.core import idempotency, loops
from apps.core.loops import loop
from apps.core.memory import uncollected
from apps.execution.commands import forget_checkpoints
from apps.jobs.budgets import forget_hours, warn
from apps.jobs.commands import repair
from apps.quotas.ledger import decay
from engine.cycle import decide

from .apply import apply
from .company import may_follow
from .kept import forget_kept
from .models import Cycle
from .observe import GRANTS_MAX, observe
from .outlook import note
from .reservations import reserve

logger = logging.getLogger(__name__)

CYCLE_AGE = timedelta(days=7)
# Reserved starts are told to people no more often; a cycle in between makes only those that its decisions need.
TOLD_EVERY = timedelta(seconds=1)
_told = 0.0


@loop("schedule")
@uncollected()
def schedule() -> bool:
    """One cycle; asks for another when its limit of grants was reached."""
    global _told
    now = timezone.now()
    began = time.perf_counter()
    told = time.monotonic() - _told > TOLD_EVERY.total_seconds()
    observed = observe(now, told=told)
    if observed is None:
        reserve({}, now)
        return False
    read = time.perf_counter()
    verdicts = decide(observed.snapshot, now=now.timestamp(), limit=GRANTS_MAX)
    cycle = Cycle(
        at=now,
        considered=len(verdicts),
        granted=0,
        observe_ms=(read - began) * 1000,
        decide_ms=(time.perf_counter() - read) * 1000,
    )
    granted = apply(observed, verdicts, now, cycle)
    if granted < len(verdicts):
        if told:
            _told = time.monotonic()
        else:
            loops.wake_at("schedule", now + TOLD_EVERY)
    if observed.snapshot.fleet.company is not None and granted:
        grants = {verdict.job for verdict in verdicts if verdict.outcome == "grant"}
        if may_follow(observed.snapshot.candidates, grants):
            return True
    # Refused grants count too, or a full cycle of which one no longer held would end the run of passes.
    return granted > 0 and granted + cycle.refused >= GRANTS_MAX


@loop("housekeep")
def housekeep() -> bool:
    """Once a minute: the ledger is compared with its grants, past use decays, budgets warn of what is used, estimated
    starts are kept to learn from, and what has served its time goes."""
    now = timezone.now()
    for difference in repair():
        logger.error("The ledger differed from its grants and was set right: %s", difference)
    decay()
    warn(now)
    forget_hours(now)
    forget_kept()
    forget_checkpoints(now)
    note(now)
    idempotency.forget(now - timedelta(hours=idempotency.KEEP_HOURS))
    Cycle.objects.filter(at__lt=now - CYCLE_AGE).delete()
    SessionStore.clear_expired()
    return False
