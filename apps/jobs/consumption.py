"""What jobs and tenants have used and what it cost, budget or not."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.quotas.models import OVER_TIME, Consumption, Period
from apps.tenants.models import Tenant
from engine.budgets import MONEY

from .budgets import UNIT, bounds
from .models import Grant

# Thousandths times milliseconds that the live grants of a tenant have used, since a time.
LIVE = (
    "SELECT coalesce(sum((g.amounts->>'cpu')::bigint * v.long), 0), "
    "coalesce(sum((g.amounts->>'gpu')::bigint * v.long), "
    "0), coalesce(sum(1000 * g.price * v.long), 0) FROM jobs_grant g JOIN jobs_job j ON j.id = g.job_id, "
    "LATERAL (SELECT 1000 * greatest(0, extract(epoch FROM %s::timestamptz - greatest(g.created_at, %s::timestamptz))) "
    "AS long) v WHERE g.released_at IS NULL AND j.tenant_id = %s"
)


def cost_of(grants: Iterable[Grant], now: datetime) -> float:
    """What grants cost until now: price of an hour · hours from the grant to its release."""
    return sum(
        float(grant.price) * ((grant.released_at or now) - grant.created_at).total_seconds() / 3600 for grant in grants
    )


def consumption(tenant: Tenant, now: datetime) -> dict[str, Any]:
    """What a tenant has used of each measure over time in this calendar month (UTC), with its beginning."""
    since, _ = bounds(Period.MONTH, now)
    ended = Consumption.objects.filter(tenant=tenant, day__gte=since.date()).order_by()
    used = {resource: float(total) for resource, total in ended.values_list("resource").annotate(Sum("amount"))}
    with connection.cursor() as cursor:
        cursor.execute(LIVE, [now, since, tenant.pk])
        live = dict(zip(("cpu", "gpu", MONEY), cursor.fetchone(), strict=True))
    amounts = {measure: used.get(name, 0.0) + float(live[name]) for measure, name in OVER_TIME.items()}
    return {"since": since, **{measure: amount / UNIT for measure, amount in amounts.items()}}
