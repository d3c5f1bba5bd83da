"""Reads of destinations, subscriptions and messages."""

from django.db.models import Count, Max, Q, QuerySet

from apps.core.actors import Actor
from apps.core.errors import NotFound

from . import policies
from .models import Delivery, Destination, Subscription
from .states import DeliveryState


def list_destinations(actor: Actor) -> QuerySet[Destination]:
    """Destinations with how many messages wait, how many were given up, and when the latest was taken."""
    return (
        policies.destinations.visible(actor)
        .select_related("tenant")
        .annotate(
            waiting=Count("deliveries", filter=Q(deliveries__state=DeliveryState.PENDING)),
            dead=Count("deliveries", filter=Q(deliveries__state=DeliveryState.DEAD)),
            sent_at=Max("deliveries__ended_at", filter=Q(deliveries__state=DeliveryState.SENT)),
        )
    )


def destination_of(actor: Actor, destination_id: int) -> Destination:
    """One destination as lists show it. Raises NotFound."""
    found = list_destinations(actor).filter(pk=destination_id).first()
    if found is None:
        raise NotFound(f"There is no destination {destination_id} that you can see.")
    return found


def list_subscriptions(actor: Actor) -> QuerySet[Subscription]:
    """Who hears of what."""
    return policies.subscriptions.visible(actor).select_related("destination__tenant", "workflow")


def list_deliveries(actor: Actor) -> QuerySet[Delivery]:
    """Messages with where they went."""
    return policies.deliveries.visible(actor).select_related("tenant", "destination").annotate(told=Count("members"))
