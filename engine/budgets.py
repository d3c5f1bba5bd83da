"""Budgets that bind whether jobs may start: what is said to those that wait, and what is left over virtual time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from engine.quota import FlavorResource
from engine.snapshot import Allowance

# Hours are sums of parts; so much less than the amount is all of it.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` jobs of `of` at once or, with a `resource`, hours of 1000 of it in a period.

    `used` is what was used of the present period when it was read; `ends` says when the period ends that a time is
    in (both epoch seconds); `unit` and `period` are words for people.
    """

    key: int
    of: str
    amount: float
    resource: str = ""
    unit: str = ""
    period: str = ""
    used: float = 0.0
    ends: Callable[[float], float] = lambda at: inf

    def allowance(self, used: float, now: float) -> Allowance | None:
        """How many more may start where so much is used; None if this does not bind."""
        if not self.resource:
            detail = f"the budget of {self.of} lets {self.amount:g} job{'s' * (self.amount != 1)} run at once."
            return Allowance(max(0, int(self.amount - used)), detail)
        if used < self.amount - ROUNDING * max(1.0, self.amount):
            return None
        detail = (
            f"the budget of {self.of} is used up: {used:.2f} of {self.amount:g} {self.unit} this {self.period}; "
            f"the next begins {_minute(self.ends(now))} UTC."
        )
        return Allowance(0, detail)


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


class Spending:
    """What is left of limits while jobs begin and end in virtual time, which never goes back.

    Hours start from what was used; of jobs at once, those that run already have to begin here too.
    """

    def __init__(self, limits: Iterable[Limit], now: float) -> None:
        self._limits = {limit.key: limit for limit in limits}
        self._accounts = {
            limit.key: _Account(limit.used, now, limit.ends(now)) if limit.resource else _Account(0.0, now, inf)
            for limit in self._limits.values()
        }

    def begin(self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float) -> None:
        """A job that counts against these begins to hold this."""
        self._move(budgets, usage, now, 1)

    def end(self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float) -> None:
        """It has ended."""
        self._move(budgets, usage, now, -1)

    def allowances(self, now: float) -> dict[int, Allowance]:
        """As `engine.snapshot.Snapshot` takes them."""
        found = {}
        for key, limit in self._limits.items():
            allowance = limit.allowance(self._until(key, now).used, now)
            if allowance is not None:
                found[key] = allowance
        return found

    def next_period(self, now: float) -> float | None:
        """When the next period of one begins that is used up now; those of nothing at all never let anybody start."""
        ends = (
            self._until(key, now).ends
            for key, limit in self._limits.items()
            if limit.resource and limit.amount > 0 and limit.allowance(self._until(key, now).used, now) is not None
        )
        return min(ends, default=None)

    def _move(self, budgets: Iterable[int], usage: Mapping[FlavorResource, int], now: float, sign: int) -> None:
        for key in budgets:
            if (limit := self._limits.get(key)) is None:
                continue
            account = self._until(key, now)
            if limit.resource:
                held = sum(amount for (_, resource), amount in usage.items() if resource == limit.resource)
                account.per_hour += sign * held / 1000
            else:
                account.used += sign

    def _until(self, key: int, now: float) -> _Account:
        """The account as it is now: use is added, and a new period begins with nothing."""
        account = self._accounts[key]
        while account.ends <= now:
            account.used, account.at = 0.0, account.ends
            account.ends = self._limits[key].ends(account.ends)
        account.used += account.per_hour * (now - account.at) / 3600
        account.at = now
        return account
