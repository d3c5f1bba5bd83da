"""Budgets as jobs meet them: what is used, who may still submit or start, and who is told that little is left.

Use over time is exact and costs the same however much has ended: what ended grants used is added up by day when
they end (`settle`), and what the live ones use is computed from their start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import cache, partial

from django.db import connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, RateLimited
from apps.core.rows import fetch
from apps.events.record import Fact, record
from apps.quotas.budgets import AT_SUBMISSION, MAX_WINDOW
from apps.quotas.models import OVER_TIME, Budget, Consumption, HourlyConsumption, Measure, Period
from apps.tenants.models import Tenant
from engine.budgets import Curve, Limit, Slice
from engine.snapshot import Allowance

from .models import Job
from .states import JOB_PLACED, JobState

# An hour of a core or a card: thousandths times milliseconds.
UNIT = 1000 * 3600 * 1000
RATE_SECONDS = 60
# Jobs of a tenant that are looked through for those of one workflow.
LATEST_MAX = 10_000
WARNINGS = (95, 80)
WORDS: dict[str, str] = {Measure.CPU_HOURS: "core-hours", Measure.GPU_HOURS: "GPU-hours", Measure.COST: "of cost"}

# A count below this is full before it is at 80 %: to say that one job of one runs warns nobody.
WARNED_FROM = 5

Scope = tuple[int, int, str]  # tenant, owner (0: nobody), workflow ("": none)


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a budget is used at `at`: hours (or what they cost) since `since`, or jobs.

    `per_hour` is what runs now adds; `until` is the end of a calendar period.
    """

    budget: Budget
    at: datetime
    used: float
    per_hour: float = 0.0
    since: datetime | None = None
    until: datetime | None = None
    # Of a window: what of it was used when.
    past: tuple[Slice, ...] = ()

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
        if self.since is None:
            return None
        if self.used >= self.budget.amount:
            return self.at
        if (limit := _limit(self)) is not None and limit.window:
            curve = Curve(self.past, self.at.timestamp())
            return _time(curve.crosses(self.budget.amount, limit.window, self.per_hour / 3600, upwards=True))
        if self.per_hour <= 0 or (hours := (self.budget.amount - self.used) / self.per_hour) > 10_000:
            return None
        at = self.at + timedelta(hours=hours)
        return at if self.until is not None and at < self.until else None

    @property
    def free_at(self) -> datetime | None:
        """When one that is used up has something left again if what runs now goes on; None if it has, or never."""
        limit = _limit(self)
        if limit is None or not limit.resource or self.used < limit.full:
            return None
        if not limit.window:
            return self.until
        return _time(limit.free_at(Curve(self.past, self.at.timestamp()), self.per_hour))


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def settle(grant_ids: Sequence[int]) -> None:
    """Add what these grants, which have just ended, used and cost to the hours and days they ran in; in the caller's
    transaction."""
    with connection.cursor() as cursor:
        cursor.execute(SETTLE, [list(grant_ids)])


SETTLE = (
    "WITH slices AS ("
    "SELECT h AS hour, j.tenant_id, coalesce(j.owner_id, 0) AS owner, j.workflow, a.resource, "
    "sum(a.amount * floor(1000 * extract(epoch FROM "
    "least(g.ended, h + interval '1 hour') - greatest(g.began, h)))) AS amount "
    "FROM (SELECT job_id, amounts, price, created_at AT TIME ZONE 'UTC' AS began, "
    "greatest(created_at, released_at) AT TIME ZONE 'UTC' AS ended FROM jobs_grant WHERE id = ANY(%s)) g "
    "JOIN jobs_job j ON j.id = g.job_id, "
    "LATERAL (SELECT key AS resource, value::numeric AS amount FROM jsonb_each_text(g.amounts) "
    "WHERE key IN ('cpu', 'gpu') UNION ALL SELECT 'money', 1000 * g.price WHERE g.price > 0) a, "
    "generate_series(date_trunc('hour', g.began), g.ended, interval '1 hour') h GROUP BY 1, 2, 3, 4, 5"
    "), hours AS ("
    "INSERT INTO quotas_hourlyconsumption AS c (hour, tenant_id, owner, workflow, resource, amount) "
    "SELECT hour AT TIME ZONE 'UTC', tenant_id, owner, workflow, resource, amount FROM slices ORDER BY 1, 2, 3, 4, 5 "
    "ON CONFLICT (hour, tenant_id, owner, workflow, resource) DO UPDATE SET amount = c.amount + excluded.amount) "
    "INSERT INTO quotas_consumption AS c (day, tenant_id, owner, workflow, resource, amount) "
    "SELECT hour::date, tenant_id, owner, workflow, resource, sum(amount) FROM slices "
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 "
    "ON CONFLICT (day, tenant_id, owner, workflow, resource) DO UPDATE SET amount = c.amount + excluded.amount"
)


def forget_hours(now: datetime) -> None:
    """What no window looks back to any more goes; the days stay."""
    HourlyConsumption.objects.filter(hour__lt=now - MAX_WINDOW - timedelta(days=1)).delete()


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
        return (
            budget.tenant_id == tenant and budget.workflow in ("", workflow) and budget.user_id in (None, owner or None)
        )
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
    periods = {(budget.period, OVER_TIME[budget.measure]) for budget in budgets if budget.period and not budget.window}
    spans = {period: bounds(period, now) for period, _ in periods}
    used = {(period, resource): _used(resource, spans[period][0], now) for period, resource in periods}
    windows = {(window, OVER_TIME[budget.measure]) for budget in budgets if (window := budget.window) is not None}
    slices = {(window, resource): _slices(resource, now - window, now) for window, resource in windows}
    found = []
    for budget in budgets:
        if (window := budget.window) is not None:
            found.append(_use_of_window(budget, window, now, slices[window, OVER_TIME[budget.measure]], domains))
        elif budget.measure in OVER_TIME:
            amounts, rates = used[budget.period, OVER_TIME[budget.measure]]
            total, rate = (_sum(budget, one, domains) for one in (amounts, rates))
            # Per hour: thousandths for as many milliseconds as an hour has.
            found.append(Use(budget, now, total / UNIT, rate / 1000, *spans[budget.period]))
        elif budget.measure == Measure.SUBMISSIONS:
            since = now - timedelta(seconds=RATE_SECONDS)
            found.append(Use(budget, now, sum(at > since for at in _latest(budget, int(budget.amount)))))
        else:
            found.append(Use(budget, now, _sum(budget, jobs[Measure(budget.measure)], domains)))
    return found


def _use_of_window(
    budget: Budget, window: timedelta, now: datetime, slices: "_Slices", domains: Mapping[int, int]
) -> Use:
    """What was used of a budget in the time that has just passed."""
    covers = cache(lambda tenant, *of: _covers(budget, tenant, domains.get(tenant, 0), *of))
    ended, live = slices
    past = [(start, end, amount / UNIT) for scope, start, end, amount in ended if covers(*scope)]
    mine = [item for scope, *item in live if covers(*scope)]
    past += [(start, now.timestamp(), amount / UNIT) for start, _, amount in mine]
    since = (now - window).timestamp()
    past = [_inside(item, since) for item in past if item[1] > since]
    rate = sum(held for _, held, _ in mine) / 1000
    used = sum(amount for _, _, amount in past)
    return Use(budget, now, used, rate, datetime.fromtimestamp(since, UTC), past=tuple(past))


def _inside(item: Slice, since: float) -> Slice:
    """The part of a slice after a time, as if it were used evenly."""
    start, end, amount = item
    return item if start >= since else (since, end, amount * (end - since) / (end - start))


def _jobs(states: Iterable[str]) -> dict[Scope, float]:
    """Jobs in these states by tenant, owner and workflow."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, coalesce(owner_id, 0), workflow, count(*) FROM jobs_job "
            "WHERE state = ANY(%s) GROUP BY 1, 2, 3",
            [[str(state) for state in states]],
        )
        return {(tenant, owner, workflow): count for tenant, owner, workflow, count in cursor.fetchall()}


# What live grants hold of a resource, of those that hold any, with how long they have (milliseconds).
LIVE = (
    "FROM jobs_grant g JOIN jobs_job j ON j.id = g.job_id, LATERAL (SELECT CASE WHEN %(resource)s = 'money' "
    "THEN 1000 * g.price ELSE (g.amounts->>%(resource)s)::bigint END AS amount, floor(1000 * greatest(0, "
    "extract(epoch FROM %(now)s::timestamptz - greatest(g.created_at, %(since)s::timestamptz)))) AS long) v "
    "WHERE g.released_at IS NULL AND v.amount > 0 GROUP BY 1, 2, 3"
)


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
            f"SELECT j.tenant_id, coalesce(j.owner_id, 0), j.workflow, sum(v.amount), sum(v.amount * v.long) {LIVE}",
            {"resource": resource, "now": now, "since": since},
        )
        for tenant, owner, workflow, amount, used in cursor.fetchall():
            scope = (tenant, owner, workflow)
            held[scope] = float(amount)
            amounts[scope] = amounts.get(scope, 0.0) + float(used)
    return amounts, held


# Of what has ended: scope, start, end (epoch seconds), thousandths times milliseconds. Of what runs: scope, since when
# (epoch seconds), the thousandths, and these times milliseconds.
_Slices = tuple[list[tuple[Scope, float, float, float]], list[tuple[Scope, float, float, float]]]


def _slices(resource: str, since: datetime, now: datetime) -> _Slices:
    """What was used since then: hour by hour on the day that the window begins in, then day by day."""
    day = datetime.combine(since.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    ended: list[tuple[Scope, float, float, float]] = []
    hourly = HourlyConsumption.objects.filter(hour__gte=hour, hour__lt=day, resource=resource).order_by()
    for tenant, owner, workflow, at, amount in hourly.values_list("tenant_id", "owner", "workflow", "hour", "amount"):
        start = at.timestamp()
        # Of the present hour, what is over of it.
        ended.append(((tenant, owner, workflow), start, min(start + 3600, now.timestamp()), float(amount)))
    daily = Consumption.objects.filter(day__gte=day.date(), day__lte=now.date(), resource=resource).order_by()
    for tenant, owner, workflow, on, amount in daily.values_list("tenant_id", "owner", "workflow", "day", "amount"):
        start = datetime.combine(on, time(), UTC).timestamp()
        ended.append(((tenant, owner, workflow), start, min(start + 86_400, now.timestamp()), float(amount)))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT j.tenant_id, coalesce(j.owner_id, 0), j.workflow, "
            "extract(epoch FROM min(greatest(g.created_at, %(since)s::timestamptz)))::float8, "
            f"sum(v.amount)::float8, sum(v.amount * v.long)::float8 {LIVE}",
            {"resource": resource, "now": now, "since": since},
        )
        live = [((tenant, owner, workflow), *rest) for tenant, owner, workflow, *rest in cursor.fetchall()]
    return ended, live


def allowances(budgets: Sequence[Budget], now: datetime) -> dict[int, Allowance]:
    """How many more jobs may start under the hard budgets that bound it; a budget with something left is not there."""
    found = {}
    for use in uses(budgets, now):
        if (limit := _limit(use)) is not None:
            free_at = use.free_at
            allowance = limit.allowance(limit.used, now.timestamp(), None if free_at is None else free_at.timestamp())
            if allowance is not None:
                found[limit.key] = allowance
    return found


def limits(budgets: Sequence[Budget], now: datetime) -> list[Limit]:
    """Budgets of jobs at once and of hours as the engine's, with what is used of them now."""
    return [limit for use in uses(budgets, now) if (limit := _limit(use)) is not None]


def limits_before(budgets: Sequence[Budget], at: datetime) -> list[Limit]:
    """The same as they were at a time in the past, when nobody ran: what had ended before it counts, by the hour."""
    domains = dict(Tenant.objects.values_list("pk", "domain_id")) if budgets else {}
    found = []
    for budget in budgets:
        since: datetime | None = None
        until: datetime | None = None
        past: tuple[Slice, ...] = ()
        if budget.period:
            since, until = (at - budget.window, None) if budget.window else bounds(budget.period, at)
            ended = _ended(OVER_TIME[budget.measure], since, at)
            past = tuple(
                (start, end, amount / UNIT)
                for (tenant, owner, workflow), start, end, amount in ended
                if _covers(budget, tenant, domains.get(tenant, 0), owner, workflow)
            )
        use = Use(budget, at, sum(amount for _, _, amount in past), 0.0, since, until, past)
        if (limit := _limit(use)) is not None:
            found.append(limit)
    return found


def _ended(resource: str, since: datetime, until: datetime) -> list[tuple[Scope, float, float, float]]:
    """What ended grants used between two times: whole days, and hours at both ends."""
    first, last = (datetime.combine(at.astimezone(UTC).date(), time(), UTC) for at in (since, until))
    whole = first if first >= since else first + timedelta(days=1)
    found: list[tuple[Scope, float, float, float]] = []
    days = Consumption.objects.filter(day__gte=whole.date(), day__lt=last.date(), resource=resource).order_by()
    for tenant, owner, workflow, day, amount in days.values_list("tenant_id", "owner", "workflow", "day", "amount"):
        start = datetime.combine(day, time(), UTC).timestamp()
        found.append(((tenant, owner, workflow), start, start + 86_400, float(amount)))
    edges = Q(hour__gt=since - timedelta(hours=1), hour__lt=min(whole, until)) | Q(hour__gte=last, hour__lt=until)
    hours = HourlyConsumption.objects.filter(edges, resource=resource).order_by()
    begin, close = since.timestamp(), until.timestamp()
    for tenant, owner, workflow, hour, amount in hours.values_list("tenant_id", "owner", "workflow", "hour", "amount"):
        start, end = max(begin, hour.timestamp()), min(close, hour.timestamp() + 3600)
        found.append(((tenant, owner, workflow), start, end, float(amount) * (end - start) / 3600))
    return found


def _limit(use: Use) -> Limit | None:
    budget = use.budget
    if budget.measure == Measure.RUNNING:
        return Limit(budget.pk, budget.of, budget.amount, used=use.used)
    if not budget.period:
        return None
    limit = Limit(
        budget.pk, budget.of, budget.amount, OVER_TIME[budget.measure], WORDS[budget.measure], budget.period, use.used
    )
    if budget.window is not None:
        return replace(limit, window=budget.window.total_seconds(), past=use.past)
    return replace(limit, ends=partial(_ends, budget.period))


def _ends(period: str, at: float) -> float:
    return bounds(period, datetime.fromtimestamp(at, UTC))[1].timestamp()


def next_period(budgets: Iterable[Budget], allowed: Mapping[int, Allowance], now: datetime) -> datetime | None:
    """When the next calendar period of a budget begins that lets nothing start now; None if only other events free one.

    A window is free again little by little, which the ticks of the loop see.
    """
    used_up = (budget.period for budget in budgets if budget.period and not budget.window and budget.pk in allowed)
    return min((bounds(period, now)[1] for period in used_up), default=None)


def _scope(budget: Budget) -> Q:
    if budget.tenant_id is not None:
        return Q(tenant=budget.tenant_id) & (Q() if budget.user_id is None else Q(owner=budget.user_id))
    return Q(tenant__domain=budget.domain_id) if budget.domain_id is not None else Q(owner=budget.user_id)


def _of_workflow(budget: Budget) -> Q:
    return Q(workflow=budget.workflow) if budget.workflow else Q()


def _latest(budget: Budget, count: int) -> list[datetime]:
    """When the latest jobs that a budget covers were submitted, so many of them, the last first.

    Of a workflow's, those among the latest of its tenant: an index leads to no further.
    """
    rows = Job.objects.filter(_scope(budget)).order_by("-pk")
    if budget.workflow:
        latest = rows.values_list("workflow", "submitted_at")[:LATEST_MAX]
        return [at for workflow, at in latest if workflow == budget.workflow][:count]
    return list(rows.values_list("submitted_at", flat=True)[:count])


COUNTED = (
    "SELECT id FROM quotas_budget WHERE measure = ANY(%s) AND workflow = ANY(%s) AND (user_id IS NULL OR user_id = %s) "
    "AND (tenant_id = %s OR domain_id = %s OR (tenant_id IS NULL AND domain_id IS NULL)) ORDER BY id FOR UPDATE"
)


def require_room(tenant: Tenant, owner_id: int | None, now: datetime, workflow: str = "") -> None:
    """Refuse a submission, or a run of a workflow that somebody triggers, above a rate (RateLimited) or above how many
    jobs may wait (Conflict).

    Locks the budgets, so that two submissions at once do not both take the last place.
    """
    of = [sorted(AT_SUBMISSION), ["", workflow], owner_id, tenant.pk, tenant.domain_id]
    counted = [pk for (pk,) in fetch(COUNTED, of)]
    for budget in Budget.objects.filter(pk__in=counted).select_related("tenant", "domain", "user").order_by("pk"):
        amount = int(budget.amount)
        if budget.measure == Measure.PENDING:
            waiting = Job.objects.filter(_scope(budget), _of_workflow(budget), state=JobState.PENDING).order_by()
            if waiting[:amount].count() >= amount:
                raise Conflict(
                    f"{amount} jobs of {budget.of} wait already, which is its budget: wait until some have started, "
                    "or cancel some.",
                    code="too_many_pending",
                )
            continue
        latest = _latest(budget, amount)
        oldest = latest[amount - 1] if len(latest) >= amount else None
        age = RATE_SECONDS if oldest is None else (now - oldest).total_seconds()
        if age < RATE_SECONDS:
            wait = max(1, int(RATE_SECONDS - age + 0.999))
            raise RateLimited(
                f"{budget.of} may submit {amount} job{'s' * (amount != 1)} a minute: submit again in {wait} s.",
                retry_after=wait,
            )


def warn(now: datetime | None = None) -> None:
    """Record an event of each budget that has passed 80 or 95 %, once each in a period; of those without one of the
    calendar, in a day."""
    now = now or timezone.now()
    watched = Budget.objects.filter(Q(measure__in=list(OVER_TIME), amount__gt=0) | Q(amount__gte=WARNED_FROM))
    for use in uses(list(watched.select_related("tenant", "domain", "user")), now):
        level = use.level
        if not level:
            continue
        since = (use.since if use.since and use.until else bounds(Period.DAY, now)[0]).date()
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
