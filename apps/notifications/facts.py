"""Facts about destinations and deliveries. Nothing that is secret, and no address, is ever in them."""

from typing import Any

from apps.events.record import Fact

from .models import Delivery, Destination


def destination_fact(verb: str, destination: Destination, **facts: Any) -> Fact:
    """A fact about a destination."""
    named = {"name": destination.name, "channel": destination.channel, **facts}
    return Fact(verb, "destination", destination.pk, tenant_id=destination.tenant_id, facts=named)


def delivery_fact(verb: str, delivery: Delivery, **facts: Any) -> Fact:
    """A fact about a message; the page of its destination shows it."""
    return Fact(
        verb,
        "delivery",
        delivery.pk,
        tenant_id=delivery.tenant_id,
        facts={"kind": delivery.kind, "destination": delivery.destination_id, **facts},
        topics=(f"destination:{delivery.destination_id}",),
    )
