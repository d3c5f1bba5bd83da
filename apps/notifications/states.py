"""Lifecycle of a message.

pending → sent | dead | digested;  sent, dead → pending when somebody sends it again

Digested: it was told in a message about several.
"""

from django.db import models


class DeliveryState(models.TextChoices):
    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    DIGESTED = "digested"


DELIVERY_EDGES: dict[tuple[str, str], str] = {
    ("pending", "sent"): "delivery.sent",
    ("pending", "dead"): "delivery.dead",
    ("pending", "digested"): "delivery.digested",
    ("sent", "pending"): "delivery.resent",
    ("dead", "pending"): "delivery.resent",
}
