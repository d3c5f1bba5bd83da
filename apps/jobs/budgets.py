"""Budgets as jobs meet them: what is used, who may still submit or start, and who is told that little is left.

Use over time is exact and costs the same however much has ended: what ended grants used is added up by day when
they end (`settle`), and what the live ones use is computed from their start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, RateLimited
from apps.events.record import Fact, record
from apps.quotas.models import OVER_TIME, Budget, Consumption, Measure, Period
from apps.tenants.models import Tenant
from engine.budgets import Limit
from engine.snapshot import Allowance

from .models import Job
from .states import JOB_PLACED, JobState

# An hour of a core or a card: thousandths times milliseconds.
UNIT = 1000 * 3600 * 1000
RATE_SECONDS = 60
WARNINGS = (95, 80)
WORDS: dict[str, str] = {Measure.CPU_HOURS: "core-hours", Measure.GPU_HOURS: "GPU-hours"}

# A count below this is full before it is at 80 %: to say that one job of one runs warns nobody.
WARNED_FROM = 5

Scope = tuple[int, int, str]  # tenant, owner (0: nobody), workflow ("": none)


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a budget is used at `at`: hours since `since`, or jobs. `per_hour` is what runs now adds."""

    budget: Budget
    at: datetime
    used: float
    per_hour: float = 0.0
    since: datetime | None = None
    until: datetime | None = None

    @property
    def level(self) -> int:
        """The highest of the WARNINGS that has been reached, in percent; 0 below them, and of a budget of nothing."""
        if not self.budget.amount:
            return 0
        # Compared without division, which would lose 80 % of some amounts.
        return next((level for level in WARNINGS if 100 * self.used >= level * self.budget.amount), 0)

    @property
    def left(self) -> float:
        """What may still be used; never below nothing."""
        return max(0.0, self.budget.amount - self.used)

    @property
    def exhausted_at(self) -> datetime | None:
        """When it is used up if what runs now goes on running; None if not in this period."""
        if self.until is None or self.used >= self.budget.amount:
            return self.at if self.until is not None else None
        if self.per_hour <= 0 or (hours := (self.budget.amount - self.used) / self.per_hour) > 10_000:
            return None
        at = self.at + timedelta(hours=hours)
        return at if at < self.until else None


def settle(grant_ids: Sequence[int]) -> None:
    """Add what these grants, which have just ended, used to the days they ran on; in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO quotas_consumption AS c (day, tenant_id, owner, workflow, resource, amount) "
            "SELECT d::date, j.tenant_id, coalesce(j.owner_id, 0), j.workflow, a.key, "
            "sum(a.value::bigint * floor(1000 * extract(epoch FROM "
            "least(g.ended, d + interval '1 day') - greatest(g.began, d)))::bigint) "
            "FROM (SELECT job_id, amounts, created_at AT TIME ZONE 'UTC' AS began, "
            "greatest(created_at, released_at) AT TIME ZONE 'UTC' AS ended FROM jobs_grant WHERE id = ANY(%s)) g "
            "JOIN jobs_job j ON j.id = g.job_id, jsonb_each_text(g.amounts) a, "
            "generate_series(date_trunc('day', g.began), g.ended, interval '1 day') d "
            "WHERE a.key IN ('cpu', 'gpu') GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 "
            "ON CONFLICT (day, tenant_id, owner, workflow, resource) DO UPDATE SET amount = c.amount + excluded.amount",
            [list(grant_ids)],
        )


def bounds(period: str, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of the calendar period (UTC) that `now` is in."""
    day = now.astimezone(UTC).date()
    if period == Period.WEEK:
        day -= timedelta(days=day.weekday())
    elif period == Period.MONTH:
        day = day.replace(day=1)
    if period == Period.MONTH:
        after = (day + timedelta(days=31)).replace(day=1)
    else:
        after = day + timedelta(days=7 if period == Period.WEEK else 1)
    return datetime.combine(day, time(), UTC), datetime.combine(after, time(), UTC)


def binding(
    budgets: Iterable[Budget], tenant: int, domain: int, owner: int | None, workflow: str = ""
) -> tuple[int, ...]:
    """The budgets that a job of this tenant, its domain, this person and this workflow counts against."""
    return tuple(budget.pk for budget in budgets if _covers(budget, tenant, domain, owner, workflow))


def _covers(budget: Budget, tenant: int, domain: int, owner: int | None, workflow: str) -> bool:
    if budget.tenant_id is not None:
        return budget.tenant_id == tenant and budget.workflow in ("", workflow)
    if budget.domain_id is not None:
        return budget.domain_id == domain
    return budget.user_id == owner


def _sum(budget: Budget, amounts: Mapping[Scope, float], domains: Mapping[int, int]) -> float:
    return sum(
        amount
        for (tenant, owner, workflow), amount in amounts.items()
        if _covers(budget, tenant, domains.get(tenant, 0), owner, workflow)
    )


def uses(budgets: Sequence[Budget], now: datetime) -> list[Use]:
    """How much of each budget is used now."""
    domains = dict(Tenant.objects.values_list("pk", "domain_id")) if budgets else {}
    jobs = {
        measure: _jobs(states)
        for measure, states in ((Measure.RUNNING, JOB_PLACED), (Measure.PENDING, {JobState.PENDING}))
        if any(budget.measure == measure for budget in budgets)
    }
    spans = {budget.period: bounds(budget.period, now) for budget in budgets if budget.period}
    used = {
        (period, resource): _used(resource, spans[period][0], now)
        for period, resource in {(budget.period, OVER_TIME[budget.measure]) for budget in budgets if budget.period}
    }
    found = []
    for budget in budgets:
        if budget.measure in OVER_TIME:
            amounts, rates = used[budget.period, OVER_TIME[budget.measure]]
            total, rate = (_sum(budget, one, domains) for one in (amounts, rates))
            # Per hour: thousandths for as many milliseconds as an hour has.
            found.append(Use(budget, now, total / UNIT, rate / 1000, *spans[budget.period]))
        elif budget.measure == Measure.SUBMISSIONS:
            since = now - timedelta(seconds=RATE_SECONDS)
            latest = _latest(budget)[: int(budget.amount)]
            found.append(Use(budget, now, sum(at > since for at in latest)))
        else:
            found.append(Use(budget, now, _sum(budget, jobs[Measure(budget.measure)], domains)))
    return found


def _jobs(states: Iterable[str]) -> dict[Scope, float]:
    """Jobs in these states by tenant, owner and workflow."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, coalesce(owner_id, 0), workflow, count(*) FROM jobs_job "
            "WHERE state = ANY(%s) GROUP BY 1, 2, 3",
            [[str(state) for state in states]],
        )
        return {(tenant, owner, workflow): count for tenant, owner, workflow, count in cursor.fetchall()}


def _used(resource: str, since: datetime, now: datetime) -> tuple[dict[Scope, float], dict[Scope, float]]:
    """By scope: thousandths times milliseconds since then, and the thousandths that are held now."""
    rows = Consumption.objects.filter(day__gte=since.date(), day__lte=now.date(), resource=resource).order_by()
    amounts: dict[Scope, float] = {
        (tenant, owner, workflow): float(total)
        for tenant, owner, workflow, total in rows.values_list("tenant_id", "owner", "workflow").annotate(Sum("amount"))
    }
    held: dict[Scope, float] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT j.tenant_id, coalesce(j.owner_id, 0), j.workflow, sum(v.amount), "
            "sum(v.amount * floor(1000 * greatest(0, extract(epoch FROM "
            "%s::timestamptz - greatest(g.created_at, %s::timestamptz))))) "
            "FROM jobs_grant g JOIN jobs_job j ON j.id = g.job_id, "
            "LATERAL (SELECT (g.amounts->>%s)::bigint AS amount) v "
            "WHERE g.released_at IS NULL AND v.amount > 0 GROUP BY 1, 2, 3",
            [now, since, resource],
        )
        for tenant, owner, workflow, amount, used in cursor.fetchall():
            scope = (tenant, owner, workflow)
            held[scope] = float(amount)
            amounts[scope] = amounts.get(scope, 0.0) + float(used)
    return amounts, held


def allowances(budgets: Sequence[Budget], now: datetime) -> dict[int, Allowance]:
    """How many more jobs may start under the hard budgets that bound it; a budget with something left is not there."""
    found = ((limit.key, limit.allowance(limit.used, now.timestamp())) for limit in limits(budgets, now))
    return {key: allowance for key, allowance in found if allowance is not None}


def limits(budgets: Sequence[Budget], now: datetime) -> list[Limit]:
    """Budgets of jobs at once and of hours as the engine's, with what is used of them now."""
    found = []
    for use in uses(budgets, now):
        budget = use.budget
        if budget.period:
            ends, resource, unit = partial(_ends, budget.period), OVER_TIME[budget.measure], WORDS[budget.measure]
            found.append(Limit(budget.pk, budget.of, budget.amount, resource, unit, budget.period, use.used, ends))
        elif budget.measure == Measure.RUNNING:
            found.append(Limit(budget.pk, budget.of, budget.amount, used=use.used))
    return found


def _ends(period: str, at: float) -> float:
    return bounds(period, datetime.fromtimestamp(at, UTC))[1].timestamp()


def next_period(budgets: Iterable[Budget], allowed: Mapping[int, Allowance], now: datetime) -> datetime | None:
    """When the next period of a budget begins that lets nothing start now; None if only other events free one."""
    used_up = (budget.period for budget in budgets if budget.period and budget.pk in allowed)
    return min((bounds(period, now)[1] for period in used_up), default=None)


def _scope(budget: Budget) -> Q:
    if budget.tenant_id is not None:
        return Q(tenant=budget.tenant_id)
    return Q(tenant__domain=budget.domain_id) if budget.domain_id is not None else Q(owner=budget.user_id)


def _latest(budget: Budget) -> Any:
    """When the latest jobs that a budget covers were submitted, the last first."""
    return Job.objects.filter(_scope(budget)).order_by("-pk").values_list("submitted_at", flat=True)


def require_room(tenant: Tenant, owner_id: int | None, now: datetime) -> None:
    """Refuse a submission above a rate (RateLimited) or above how many jobs may wait (Conflict).

    Locks the budgets, so that two submissions at once do not both take the last place.
    """
    mine = Q(tenant=tenant) | Q(domain=tenant.domain_id) | (Q(user=owner_id) if owner_id is not None else Q())
    counted = Budget.objects.filter(mine, measure__in=(Measure.PENDING, Measure.SUBMISSIONS))
    for budget in counted.select_related("tenant", "domain", "user").select_for_update(of=("self",)).order_by("pk"):
        amount = int(budget.amount)
        if budget.measure == Measure.PENDING:
            if Job.objects.filter(_scope(budget), state=JobState.PENDING).order_by()[:amount].count() >= amount:
                raise Conflict(
                    f"{amount} jobs of {budget.of} wait already, which is its budget: wait until some have started, "
                    "or cancel some.",
                    code="too_many_pending",
                )
            continue
        oldest = _latest(budget)[amount - 1 : amount].first() if amount else now
        age = RATE_SECONDS if oldest is None else (now - oldest).total_seconds()
        if age < RATE_SECONDS:
            wait = max(1, int(RATE_SECONDS - age + 0.999))
            raise RateLimited(
                f"{budget.of} may submit {amount} job{'s' * (amount != 1)} a minute: submit again in {wait} s.",
                retry_after=wait,
            )


def warn(now: datetime | None = None) -> None:
    """Record an event of each budget that has passed 80 or 95 %, once each in a period, counts and rates in a day."""
    now = now or timezone.now()
    watched = Budget.objects.filter(Q(measure__in=list(OVER_TIME), amount__gt=0) | Q(amount__gte=WARNED_FROM))
    for use in uses(list(watched.select_related("tenant", "domain", "user")), now):
        level = use.level
        if not level:
            continue
        since = (use.since or bounds(Period.DAY, now)[0]).date()
        told = Q(warned_on=since, warned_percent__gte=level)
        with transaction.atomic():
            fresh = Budget.objects.filter(pk=use.budget.pk).exclude(told)
            if fresh.update(warned_on=since, warned_percent=level):
                _record_warning(use, level)


def _record_warning(use: Use, level: int) -> None:
    budget = use.budget
    facts = {
        "of": budget.of, "measure": budget.measure, "period": budget.period, "amount": budget.amount,
        "used": round(use.used, 3), "percent": level, "hard": budget.hard,
    }  # fmt: skip
    fact = Fact(
        "budget.warned", "budget", budget.pk, tenant_id=budget.tenant_id, domain_id=budget.domain_id, facts=facts,
        topics=("quota",),
    )  # fmt: skip
    record(SYSTEM, fact)
