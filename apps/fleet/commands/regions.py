"""What operators say of regions: how far they are from each other, and how clean their power is."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import Fact, record
from apps.tenants.commands import checked_slug

from .. import policies
from ..models import Region

MAX_REGIONS = 500
MAX_MILLISECONDS, MAX_CARBON = 60_000.0, 10_000.0


def _number(field: str, value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and 0 <= value <= most):
        raise Invalid.field(field, f"a number from 0 to {most:g}.")
    return float(value)


def _fact(verb: str, region: Region) -> Fact:
    facts = {"carbon": region.carbon, "round_trips": len(region.round_trips)}
    return Fact(verb, "region", region.pk, facts={"name": region.name, **facts}, topics=("fleet",))


def _forget_ways_to(region: Region) -> None:
    """Take back what others have said of the ways to a region."""
    for row in Region.objects.select_for_update().exclude(pk=region.pk).order_by("pk"):
        if row.round_trips.pop(region.name, None) is not None:
            row.save(update_fields=["round_trips"])


@transaction.atomic
def set_region(*, actor: Actor, name: str, carbon: float | None, round_trips: Mapping[str, Any]) -> Region:
    """Say all that is known of a region, in place of what was.

    `carbon` is grams of CO₂ for each kWh, `round_trips` milliseconds to other regions and back: a way is the same in
    both directions and is said once.
    """
    policies.regions.require(actor, "set", name)
    checked_slug("name", name)
    if len(round_trips) > MAX_REGIONS:
        raise Invalid.field("round_trips", f"at most {MAX_REGIONS} regions.")
    ways = {}
    for other, value in round_trips.items():
        field = f"round_trips.{other}"
        if checked_slug("round_trips", other) == name:
            raise Invalid.field(field, "a region is no way from itself; leave it out.")
        ways[other] = _number(field, value, MAX_MILLISECONDS)
    region, _ = Region.objects.select_for_update().get_or_create(name=name)
    region.carbon = None if carbon is None else _number("carbon", carbon, MAX_CARBON)
    region.round_trips = ways
    region.save()
    # The way back is the same, and whoever says it last is right.
    _forget_ways_to(region)
    record(actor, _fact("region.set", region))
    return region


@transaction.atomic
def delete_region(*, actor: Actor, name: str) -> None:
    """Forget what was said of a region, by itself and by others."""
    policies.regions.require(actor, "set", name)
    region = policies.regions.get(actor, lock=True, name=name)
    _forget_ways_to(region)
    record(actor, _fact("region.forgotten", region))
    region.delete()
