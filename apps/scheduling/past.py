"""What was in force in a recorded period: budgets, and the terms of lending, from the log of what changed them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from apps.events.models import Event
from apps.fleet.queries import pool_members, terms_at
from apps.fleet.snapshot import load_lent
from apps.jobs.budgets import limits_before
from apps.jobs.configuration import Configuration
from apps.quotas.models import OVER_TIME, Budget, Measure
from engine import simulate
from engine.budgets import UNLIMITED, Limit

# Of a period's own time, of today, or none at all.
TIMES = ("then", "present", "none")
BINDING = frozenset({Measure.RUNNING, *OVER_TIME})


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of a period: their rows, what each let be used at its start, and how they changed until its end."""

    rows: list[Budget] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    changes: list[simulate.Change] = field(default_factory=list)


def budgets_of(which: str, configured: Configuration, start: datetime, end: datetime) -> Budgets:
    """Those of the time (`then`) as far as the log tells whose they were, those of today, or none."""
    if which == "none":
        return Budgets()
    if which == "present":
        return Budgets(configured.budgets, limits_before(configured.budgets, start))
    steps = _steps(end)
    present = Budget.objects.filter(measure__in=BINDING).select_related("tenant", "domain", "user")
    rows = {row.pk: row for row in present}
    for event in (first for first, *_ in steps.values() if first.subject_id not in rows):
        if (row := _gone(event)) is not None:
            rows[row.pk] = row
    made = Budgets(list(rows.values()))
    for limit in limits_before(made.rows, start):
        amounts = _amounts(rows[limit.key], steps.get(limit.key, []))
        before = [amount for at, amount in amounts if at is None or at <= start]
        made.limits.append(replace(limit, amount=before[-1] if before else UNLIMITED))
        made.changes.extend(
            simulate.Change(at.timestamp(), limits=[replace(limit, amount=amount)])
            for at, amount in amounts
            if at is not None and at > start
        )
    return made


def _steps(end: datetime) -> dict[int, list[Event]]:
    """What happened to each budget until then, in order."""
    found: dict[int, list[Event]] = {}
    verbs = ("budget.created", "budget.changed", "budget.deleted")
    for event in Event.objects.filter(verb__in=verbs, at__lt=end).order_by("id"):
        found.setdefault(event.subject_id, []).append(event)
    return found


def _gone(event: Event) -> Budget | None:
    """A budget that has been deleted since; None of one of which the log does not tell whose it was."""
    facts = event.facts
    if facts["measure"] not in BINDING or "user" not in facts:
        return None
    return Budget(
        pk=event.subject_id, tenant_id=event.tenant_id, domain_id=event.domain_id, user_id=facts["user"],
        workflow=facts["workflow"], measure=facts["measure"], period=facts["period"], amount=facts["amount"],
    )  # fmt: skip


def _amounts(row: Budget, events: Iterable[Event]) -> list[tuple[datetime | None, float]]:
    """From when on how much there was: UNLIMITED while it only warned or was not there. None: from the beginning."""
    found: list[tuple[datetime | None, float]] = []
    for event in events:
        if not found and event.verb != "budget.created":
            # What it was before its first change is not in the log.
            found.append((None, row.amount if row.hard else UNLIMITED))
        hard = event.verb != "budget.deleted" and event.facts["hard"]
        found.append((event.at, event.facts["amount"] if hard else UNLIMITED))
    return found or ([(None, row.amount)] if row.hard and row.pk else [])


def lending_of(which: str, configured: Configuration, start: datetime, now: datetime) -> Configuration:
    """The configuration with the terms under which nodes were lent at a time, or of today without their bounds.

    The nodes are those of today: a cluster that was not lent then has its terms of today.
    """
    if which == "none":
        lent = {pk: replace(one, row=replace(one.row, lending=None)) for pk, one in configured.lent.items()}
        return replace(configured, lent=lent, lendings={})
    pools = pool_members(start if which == "then" else now, terms_at(start) if which == "then" else None, around=start)
    return replace(configured, pools=pools, lent=load_lent(pools.values()))

