"""Why a job stays pending, with what was tried: the same record that decides also explains."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.placement import Funnel, Member, Unplaced
from engine.preemption import Cause
from engine.quota import Shortage
from engine.reasons import Reason, mildest


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why jobs of one kind stay pending."""

    reason: Reason
    detail: str
    funnel: Funnel | None = None
    tried: Sequence[dict[str, object]] = ()
    members: tuple[Member, ...] = ()
    victims: tuple[tuple[int, Cause], ...] = ()
    flavor: str | None = None
    # There is room for it now, which it may not take before somebody who has a reserved start.
    held: bool = False


def combined(refusals: Sequence[Refusal]) -> Refusal:
    """The mildest over alternatives, as one flavor that works is enough; what was tried of all."""
    reason = mildest(refusal.reason for refusal in refusals)
    chosen = next(refusal for refusal in refusals if refusal.reason == reason)
    tried = [entry for refusal in refusals for entry in refusal.tried]
    return Refusal(reason, chosen.detail, chosen.funnel, tried, held=any(refusal.held for refusal in refusals))


def no_flavor(flavor: str) -> Refusal:
    """The queue has no quota in the flavor."""
    reason, detail = Reason.NO_FLAVOR, f"the tenant has no quota in flavor {flavor}."
    return Refusal(reason, detail, None, [{"flavor": flavor, "outcome": reason.value, "detail": detail}])


def no_quota(flavor: str, shortage: Shortage, reason: Reason) -> Refusal:
    """Quota does not suffice, now or ever, with the limit that binds."""
    detail = shortage.text()
    quota = {
        "resource": shortage.fr[1],
        "requested": shortage.requested,
        "available": shortage.available,
        "potential": shortage.potential,
        "limiting": shortage.limiting,
        "limit": shortage.limit,
    }
    return Refusal(
        reason, detail, None, [{"flavor": flavor, "outcome": reason.value, "detail": detail, "quota": quota}]
    )


def no_place(flavor: str, unplaced: Unplaced) -> Refusal:
    """No node takes it, with the funnel that says why."""
    detail = f"flavor {flavor}: {unplaced.detail}"
    entry: dict[str, object] = {
        "flavor": flavor,
        "outcome": unplaced.reason.value,
        "detail": detail,
        "funnel": unplaced.funnel.as_list(),
    }
    return Refusal(unplaced.reason, detail, unplaced.funnel, [entry])


def behind(flavor: str, ahead: int, start: float) -> Refusal:
    """It has room now, but not for as long as it is expected to run: somebody ahead of it has a reserved start."""
    detail = f"it would fit now, but is expected to run beyond the start that is reserved for job {ahead}."
    entry: dict[str, object] = {
        "flavor": flavor,
        "outcome": Reason.BEHIND_IN_QUEUE.value,
        "detail": detail,
        "ahead": {"job": ahead, "start": start},
    }
    return Refusal(Reason.BEHIND_IN_QUEUE, detail, None, [entry], held=True)
