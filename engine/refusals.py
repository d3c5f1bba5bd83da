"""Why a job stays pending, with what was tried: the same record that decides also explains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True, slots=True)
class Granted:
    """The record of a grant: the flavors tried, the last of which it was, and how its nodes were found."""

    funnel: Funnel
    tried: Sequence[dict[str, object]]
    detail: str = ""


class Deferred:
    """A refusal whose words and figures are only made when somebody asks for them, from what is there at the end of the
    cycle: thousands of jobs stay refused for the same reason from one cycle to the next."""

    __slots__ = ("_made", "_make", "held", "reason")
    flavor = None
    members: tuple[Member, ...] = ()
    victims: tuple[tuple[int, Cause], ...] = ()

    def __init__(self, reason: Reason, make: Callable[[], Refusal], *, held: bool = False) -> None:
        self.reason, self._make, self.held = reason, make, held
        self._made: Refusal | None = None

    @property
    def words(self) -> Refusal:
        """The same as a refusal with everything in it."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def detail(self) -> str:
        """For people."""
        return self.words.detail

    @property
    def funnel(self) -> Funnel | None:
        """Of the flavor whose reason is reported."""
        return self.words.funnel

    @property
    def tried(self) -> Sequence[dict[str, object]]:
        """By flavor."""
        return self.words.tried

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Deferred):
            other = other.words
        return self.words == other

    def __hash__(self) -> int:
        return hash(self.reason)


Told = Refusal | Deferred


def combined(refusals: Sequence[Told]) -> Deferred:
    """The mildest over alternatives, as one flavor that works is enough; what was tried of all."""
    reason = mildest(refusal.reason for refusal in refusals)
    return Deferred(reason, partial(_combined, reason, refusals), held=any(refusal.held for refusal in refusals))


def _combined(reason: Reason, refusals: Sequence[Told]) -> Refusal:
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
