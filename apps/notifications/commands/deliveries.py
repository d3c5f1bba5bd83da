"""Messages that people ask for."""

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.events.record import record, transition

from .. import policies
from ..facts import delivery_fact, destination_fact
from ..models import Delivery, Destination, Kind
from ..states import DELIVERY_EDGES, DeliveryState


@transaction.atomic
def send_test(*, actor: Actor, destination_id: int) -> Delivery:
    """Send a message that says nothing, to see whether it arrives. Raises Conflict for a destination that is off."""
    destination = policies.destinations.get(actor, "test", lock=True, pk=destination_id)
    if not destination.enabled:
        raise Conflict(f"Destination {destination.name} is switched off: switch it on first.")
    now = timezone.now()
    made = Delivery.objects.create(
        tenant_id=destination.tenant_id,
        destination=destination,
        kind=Kind.TEST,
        subject_type="destination",
        subject_id=destination.pk,
        facts={"by": actor.label.removeprefix("user:")},
        at=now,
        due_at=now,
    )
    Destination.objects.filter(pk=destination.pk).update(resumes_at=None)
    record(actor, destination_fact("destination.tested", destination))
    return made


@transaction.atomic
def send_again(*, actor: Actor, delivery_id: int) -> Delivery:
    """Send a message that was sent or given up once more, under its name. Raises Conflict for one that still waits,
    or that another one told of."""
    delivery = policies.deliveries.get(actor, "send_again", lock=True, pk=delivery_id)
    if delivery.state == DeliveryState.PENDING:
        raise Conflict(f"Delivery {delivery.pk} waits to be sent already.", code="already_pending")
    if delivery.state == DeliveryState.DIGESTED:
        raise Conflict(f"Delivery {delivery.pk} was told in delivery {delivery.digest_id}: send that again.")
    now = timezone.now()
    fact = delivery_fact("", delivery)
    transition(
        actor, delivery, DELIVERY_EDGES, DeliveryState.PENDING, fact, at=now, due_at=now, attempts=0, ended_at=None
    )
    Destination.objects.filter(pk=delivery.destination_id).update(resumes_at=None)
    return delivery
