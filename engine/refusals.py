"""Why a job stays pending, with what was tried: the same record that decides also explains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from engine.choices import SEVERAL
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
    flavors: tuple[str, ...] = ()
    # There is room for it now, which it may not take before somebody who has a reserved start.
    held: bool = False


class Deferred:
    """A refusal whose words and figures are only made when somebody asks for them, from what is there at the end of the
    cycle: thousands of jobs stay refused for the same reason from one cycle to the next."""

    __slots__ = ("_made", "_make", "held", "reason")
    flavor = None
    flavors: tuple[str, ...] = ()
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


class Granted:
    """The record of a grant: the flavors tried, the last of which it was, and how its nodes were found.

    Like that of a refusal it is only worded when somebody asks: the funnel as it was before the grant.
    """

    __slots__ = ("_before", "_flavor", "_funnel", "_sieve")
    detail = ""

    def __init__(self, flavor: str, before: Sequence["Told"], sieve: Callable[[], Funnel]) -> None:
        self._flavor, self._before, self._sieve = flavor, before, sieve
        self._funnel: Funnel | None = None

    @property
    def funnel(self) -> Funnel:
        """Of the flavor that was granted."""
        if self._funnel is None:
            self._funnel = self._sieve()
        return self._funnel

    @property
    def tried(self) -> Sequence[dict[str, object]]:
        """By flavor."""
        granted: dict[str, object] = {
            "flavor": self._flavor,
            "outcome": "granted",
            "detail": "",
            "funnel": self.funnel.as_list(),
        }
        return [*tried(self._before), granted]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Granted) and self.tried == other.tried

    def __hash__(self) -> int:
        return hash(self._flavor)


def tried(refusals: Sequence[Told]) -> list[dict[str, object]]:
    """What was tried of all."""
    return [entry for told in refusals for entry in told.tried]


def combined(refusals: Sequence[Told]) -> Deferred:
    """The mildest over alternatives, as one flavor that works is enough; what was tried of all."""
    reason = mildest(refusal.reason for refusal in refusals)
    return Deferred(reason, partial(_combined, reason, refusals), held=any(refusal.held for refusal in refusals))


def _combined(reason: Reason, refusals: Sequence[Told]) -> Refusal:
    chosen = next(refusal for refusal in refusals if refusal.reason == reason)
    held = any(refusal.held for refusal in refusals)
    return Refusal(reason, chosen.detail, chosen.funnel, tried(refusals), held=held)


def no_flavor(flavor: str, missing: str) -> Refusal:
    """The queue has no quota in the flavor, or in the `missing` one of several."""
    reason, detail = Reason.NO_FLAVOR, f"the tenant has no quota in flavor {missing}."
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
    detail = f"{'flavors' if SEVERAL in flavor else 'flavor'} {flavor}: {unplaced.detail}"
    entry: dict[str, object] = {
        "flavor": flavor,
        "outcome": unplaced.reason.value,
        "detail": detail,
        "funnel": unplaced.funnel.as_list(),
    }
    return Refusal(unplaced.reason, detail, unplaced.funnel, [entry])


def behind(flavor: str, ahead: int | None, start: float) -> Refusal:
    """It has room now, but not for as long as it is expected to run: somebody ahead of it has a reserved start.

    `ahead` is None where that is a job of another queue: a tenant is not told of others' jobs.
    """
    whom = "a job of another tenant" if ahead is None else f"job {ahead}"
    detail = f"it would fit now, but is expected to run beyond the start that is reserved for {whom}."
    entry: dict[str, object] = {
        "flavor": flavor,
        "outcome": Reason.BEHIND_IN_QUEUE.value,
        "detail": detail,
        "ahead": {"job": ahead, "start": start},
    }
    return Refusal(Reason.BEHIND_IN_QUEUE, detail, None, [entry], held=True)


def full(flavor: str, granted: int, before: Sequence[Told]) -> Deferred:
    """It fits, but so many were granted in this cycle that it has to wait for the next."""
    return Deferred(Reason.BEHIND_IN_QUEUE, partial(_full, flavor, granted, before))


def _full(flavor: str, granted: int, before: Sequence[Told]) -> Refusal:
    detail = f"it fits, but {granted} jobs were granted before it in this cycle."
    entry: dict[str, object] = {"flavor": flavor, "outcome": "fits", "detail": detail}
    return Refusal(Reason.BEHIND_IN_QUEUE, detail, None, [*tried(before), entry])
