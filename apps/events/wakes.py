"""Which loop a fact gives work to: the one table of what wakes whom.

Every command records its event, so the event's verb is the one place that knows of a change: writing it wakes the
loops below when the transaction commits, and no command has to think of them.
"""

from collections.abc import Iterable

from .stamp import CONFIGURATION

# By one verb, or by a noun for all of its verbs; where both are here, both count.
LOOPS: dict[str, tuple[str, ...]] = {
    # Pools, terms, quota, tenants and nodes decide what may start, where, and what a waiting job is told.
    **dict.fromkeys(CONFIGURATION, ("schedule",)),
    # A job waits anew, or an attempt has ended and its capacity and quota are free.
    **dict.fromkeys(
        ("job.submitted", "job.released", "job.requeued", "job.succeeded", "job.failed", "job.cancelled"),
        ("schedule",),
    ),
    # What is on the node is to be moved or is gone.
    **dict.fromkeys(("node.draining", "node.lost", "node.removed"), ("recover",)),
    # There is a message to be sent. How runs and tasks end is read at each tick: it would wake the loop for each.
    **dict.fromkeys(
        ("destination.tested", "delivery.resent", "run.deadline_missed", "approval.opened", "budget.warned"),
        ("notify",),
    ),
    # Replicas are to be started or stopped.
    **dict.fromkeys(
        ("service.deployed", "service.changed", "service.scaled", "service.stopped"), ("services",)
    ),
    "workflow": ("timetable",),
    # It has runs to be made, and those that wait may start.
    "backfill": ("timetable", "advance"),
    # A run waits, or a place among the active runs of its workflow is free.
    **dict.fromkeys(("run.created", "run.cancelled", "run.reopened", "workflow.resumed"), ("advance",)),
}


def woken_by(verbs: Iterable[str]) -> set[str]:
    """The loops that have something to do after these facts."""
    found: set[str] = set()
    for verb in verbs:
        found.update(LOOPS.get(verb, ()), LOOPS.get(verb.partition(".")[0], ()))
    return found
