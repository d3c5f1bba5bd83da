"""The only writers of destinations and subscriptions, and of messages besides the loop (`reading`, `sending`)."""

from .deliveries import send_again, send_test
from .destinations import change_destination, create_destination, delete_destination
from .subscriptions import subscribe, unsubscribe

__all__ = [
    "change_destination",
    "create_destination",
    "delete_destination",
    "send_again",
    "send_test",
    "subscribe",
    "unsubscribe",
]
