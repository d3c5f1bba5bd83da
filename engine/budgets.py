"""Budgets that bind whether jobs may start: what is said to those that wait, and what is left over virtual time."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from engine.quota import FlavorResource
from engine.snapshot import Allowance

# Hours are sums of parts; so much less than the amount is all of it.
ROUNDING = 1e-9
# The resource of limits on what a job costs: the sum over its members of the prices of their cores and cards.
MONEY = "money"
# No limit, as an amount that nobody reaches.
UNLIMITED = 1e15
# Start, end (epoch seconds), and how much was used between them.
Slice = tuple[float, float, float]


class Curve:
    """Use that has added up, as a line through points in time, so that a window that moves over it can be read off.

    It begins with slices of the past (start, end, how much was used, evenly over that time).
    """

    def __init__(self, slices: Iterable[Slice] = (), now: float = 0.0) -> None:
        known = [(start, min(end, now), amount) for start, end, amount in slices if start < end and start < now]
        steps: dict[float, float] = {}
        for start, end, amount in known:
            rate = amount / (end - start)
            steps[start] = steps.get(start, 0.0) + rate
            steps[end] = steps.get(end, 0.0) - rate
        self._times, self._totals = [min(steps, default=now)], [0.0]
        rate = 0.0
        for at in sorted(steps.keys() | {now}):
            self.add(rate * (at - self._times[-1]), at)
            rate += steps.get(at, 0.0)

    def add(self, amount: float, until: float) -> None:
        """So much more was used, evenly, from the last point to this one, which is not before it."""
        if until > self._times[-1]:
            self._times.append(until)
            self._totals.append(self._totals[-1] + amount)

    def since(self, at: float) -> float:
        """What was used from a time until the last point."""
        place = bisect_right(self._times, at)
        if place == 0:
            return self._totals[-1]
        if place == len(self._times):
            return 0.0
        before, after = self._times[place - 1], self._times[place]
        part = (at - before) / (after - before)
        return self._totals[-1] - self._totals[place - 1] - part * (self._totals[place] - self._totals[place - 1])

    def crosses(self, amount: float, window: float, per_second: float, *, upwards: bool) -> float | None:
        """When the use of the last `window` seconds reaches an amount (or, downwards, falls below it), if it goes on
        at this rate from the last point; None if it does not."""
        now = self._times[-1]
        at, use = now, self.since(now - window)
        ahead = self._times[bisect_right(self._times, now - window) :]
        for moment, total in zip(ahead, self._totals[-len(ahead) :], strict=True):
            then = moment + window
            later = self._totals[-1] - total + per_second * (then - now)
            if (later >= amount) if upwards else (later < amount):
                return at if later == use else at + (then - at) * max(0.0, (amount - use) / (later - use))
            at, use = then, later
        return None


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` jobs of `of` at once or, with a `resource`, hours of 1000 of it (of MONEY: what these cost) in a
    calendar period or, with a `window` (seconds), in the time that has just passed.

    `used` is what was used when it was read; `ends` says when the calendar period ends that a time is in (epoch
    seconds), `past` what of a window was used when; `unit` and `period` are words for people.
    """

    key: int
    of: str
    amount: float
    resource: str = ""
    unit: str = ""
    period: str = ""
    used: float = 0.0
    ends: Callable[[float], float] = lambda at: inf
    window: float = 0.0
    past: tuple[Slice, ...] = ()

    @property
    def full(self) -> float:
        """So much is all of it."""
        return self.amount - ROUNDING * max(1.0, self.amount)

    def allowance(self, used: float, now: float, free_at: float | None = None) -> Allowance | None:
        """How many more may start where so much is used; None if this does not bind. A window is free at `free_at`."""
        if not self.resource:
            detail = f"the budget of {self.of} lets {self.amount:g} job{'s' * (self.amount != 1)} run at once."
            return Allowance(max(0, int(self.amount - used)), detail)
        if used < self.full:
            return None
        detail = f"the budget of {self.of} is used up: {used:.2f} of {self.amount:g} {self.unit} "
        if not self.window:
            detail += f"this {self.period}; the next begins {_minute(self.ends(now))} UTC."
        else:
            later = "not while what runs goes on" if free_at is None else f"from {_minute(free_at + 59)} UTC"
            detail += f"in the last {self.period}; some of it is free again {later}."
        return Allowance(0, detail)

    def free_at(self, curve: Curve, per_hour: float) -> float | None:
        """When a window that is used up is free again by the use that leaves it; None if what runs keeps it full."""
        below = self.full - ROUNDING * max(1.0, self.amount)
        return curve.crosses(below, self.window, per_hour / 3600, upwards=False) if self.amount > 0 else None


def _minute(at: float) -> str:
    """`2026-03-01 00:00` for epoch seconds, in UTC."""
    return str(np.datetime64(int(at), "s").astype("datetime64[m]")).replace("T", " ")


@dataclass(slots=True)
class _Account:
    """What is used of one limit at a time: jobs that run, or hours of this period and what an hour adds."""

    used: float
    at: float
    ends: float
    per_hour: float = 0.0
    # Of a limit with a window.
    curve: Curve | None = None


class Spending:
    """What is left of limits while jobs begin and end in virtual time, which never goes back.

    Hours start from what was used; of jobs at once, those that run already have to begin here too.
    """

    def __init__(self, limits: Iterable[Limit], now: float) -> None:
        self._limits = {limit.key: limit for limit in limits}
        self._accounts = {key: _account(limit, now) for key, limit in self._limits.items()}

    def begin(self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float, price: float = 0) -> None:
        """A job that counts against these begins to hold this, at a price for an hour."""
        self._move(budgets, usage, now, price, 1)

    def end(self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float, price: float = 0) -> None:
        """It has ended."""
        self._move(budgets, usage, now, price, -1)

    def change(self, limits: Iterable[Limit]) -> None:
        """Other amounts from now on, of limits with the same keys; what was used stays."""
        for limit in limits:
            self._limits[limit.key] = limit

    def allowances(self, now: float) -> dict[int, Allowance]:
        """As `engine.snapshot.Snapshot` takes them."""
        found = {}
        for key, limit in self._limits.items():
            account = self._until(key, now)
            allowance = limit.allowance(account.used, now, self._free_at(key, now))
            if allowance is not None:
                found[key] = allowance
        return found

    def next_period(self, now: float) -> float | None:
        """When one that is used up now has something left again; those of nothing at all never let anybody start."""
        times = (
            self._free_at(key, now)
            for key, limit in self._limits.items()
            if limit.resource and limit.amount > 0 and self._until(key, now).used >= limit.full
        )
        return min((at for at in times if at is not None), default=None)

    def _free_at(self, key: int, now: float) -> float | None:
        limit, account = self._limits[key], self._accounts[key]
        if account.curve is None:
            return account.ends
        if account.used < limit.full:
            return None
        at = limit.free_at(account.curve, account.per_hour)
        # Floats are coarse: not before a moment that differs.
        return at and max(at, now + 1.0)

    def _move(
        self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float, price: float, sign: int
    ) -> None:
        for key in budgets:
            if (limit := self._limits.get(key)) is None:
                continue
            account = self._until(key, now)
            if limit.resource == MONEY:
                account.per_hour += sign * price
            elif limit.resource:
                held = sum(amount for (_, resource), amount in usage.items() if resource == limit.resource)
                account.per_hour += sign * held / 1000
            else:
                account.used += sign

    def _until(self, key: int, now: float) -> _Account:
        """The account as it is now: use is added, and what a period or a window has behind it goes."""
        account = self._accounts[key]
        if account.curve is not None:
            account.curve.add(account.per_hour * (now - account.at) / 3600, now)
            account.used, account.at = account.curve.since(now - self._limits[key].window), now
            return account
        while account.ends <= now:
            account.used, account.at = 0.0, account.ends
            account.ends = self._limits[key].ends(account.ends)
        account.used += account.per_hour * (now - account.at) / 3600
        account.at = now
        return account


def _account(limit: Limit, now: float) -> _Account:
    if not limit.resource:
        return _Account(0.0, now, inf)
    if limit.window:
        return _Account(limit.used, now, inf, curve=Curve(limit.past, now))
    return _Account(limit.used, now, limit.ends(now))
