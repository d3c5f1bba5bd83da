"""The terms under which a domain lends the nodes of a cluster."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import Fact, record
from apps.tenants.models import Domain

from .. import policies
from ..models import Cluster, Contribution
from ..validators import checked_jurisdictions, checked_whole
from ..windows import checked_windows, checked_zone

MAX_PRICE = Decimal(100_000)
MAX_NOTICE_SECONDS = 366 * 86400
# No limit is a limit that nobody reaches; the largest that the column takes.
MAX_CAP = 2**62
CAPS = ("cap_cpu_millicores", "cap_memory_bytes", "cap_gpu_milli")
# Told of only where they say something.
TOLD = ("jurisdictions", "windows", *CAPS)
FIELDS = (
    "share_percent",
    "trust",
    "jurisdictions",
    "price_per_cpu_hour",
    "price_per_gpu_hour",
    "starts_at",
    "ends_at",
    "notice_seconds",
    "windows",
    "timezone",
    *CAPS,
)


def _check(terms: Contribution) -> None:
    """Raise Invalid for terms that make no sense."""
    checked_whole("share_percent", terms.share_percent, 1, 100)
    checked_whole("trust", terms.trust, 0, 100)
    checked_whole("notice_seconds", terms.notice_seconds, 0, MAX_NOTICE_SECONDS)
    for field in ("price_per_cpu_hour", "price_per_gpu_hour"):
        price = Decimal(getattr(terms, field))
        if not price.is_finite() or not 0 <= price <= MAX_PRICE:
            raise Invalid.field(field, f"a price from 0 to {MAX_PRICE}.")
    if terms.starts_at is not None and terms.ends_at is not None and terms.ends_at <= terms.starts_at:
        raise Invalid.field("ends_at", "must be later than starts_at.")
    terms.jurisdictions = checked_jurisdictions(terms.jurisdictions)
    terms.windows = checked_windows(terms.windows)
    terms.timezone = checked_zone(terms.timezone)
    for field in CAPS:
        if getattr(terms, field) is not None:
            checked_whole(field, getattr(terms, field), 0, MAX_CAP)


def _fact(verb: str, terms: Contribution, consumers: Iterable[Domain]) -> Fact:
    facts: dict[str, Any] = {
        "cluster": terms.cluster.name,
        "share_percent": terms.share_percent,
        "trust": terms.trust,
        "price_per_cpu_hour": float(terms.price_per_cpu_hour),
        "price_per_gpu_hour": float(terms.price_per_gpu_hour),
        "consumers": sorted(domain.slug for domain in consumers),
        **{name: value for name in TOLD if (value := getattr(terms, name)) not in (None, [])},
    }
    if terms.windows:
        facts["timezone"] = terms.timezone
    return Fact(
        verb, "contribution", terms.pk, domain_id=terms.cluster.domain_id, facts=facts, topics=("fleet",)
    )


@transaction.atomic
def create_contribution(
    *, actor: Actor, cluster: Cluster, consumers: Iterable[Domain] = (), **terms: Any
) -> Contribution:
    """Lend a cluster. `terms` are fields of Contribution; no consumers means every domain."""
    policies.clusters.require(actor, "lend", cluster)
    row = Contribution(cluster=cluster, **_known(terms))
    _check(row)
    row.save()
    chosen = list(consumers)
    row.consumers.set(chosen)
    record(actor, _fact("contribution.created", row, chosen))
    return row


@transaction.atomic
def update_contribution(
    *, actor: Actor, contribution_id: int, consumers: Iterable[Domain] | None = None, **terms: Any
) -> Contribution:
    """Change the terms; what runs goes on, new grants follow the new ones."""
    row = policies.contributions.get(actor, "update", lock=True, pk=contribution_id)
    for name, value in _known(terms).items():
        setattr(row, name, value)
    _check(row)
    row.save()
    if consumers is not None:
        row.consumers.set(list(consumers))
    record(actor, _fact("contribution.changed", row, row.consumers.all()))
    return row


@transaction.atomic
def delete_contribution(*, actor: Actor, contribution_id: int) -> None:
    """End the lending: no new grants on it; what runs goes on."""
    row = policies.contributions.get(actor, "delete", lock=True, pk=contribution_id)
    record(actor, _fact("contribution.deleted", row, row.consumers.all()))
    row.delete()


def _known(terms: dict[str, Any]) -> dict[str, Any]:
    unknown = set(terms) - set(FIELDS)
    if unknown:
        raise TypeError(f"not fields of a contribution: {', '.join(sorted(unknown))}")
    return terms
