"""The loop of notifications: it reads what is new, and lets senders work."""

import time
from datetime import timedelta

from django.utils import timezone

from apps.core import loops

from .models import Delivery
from .reading import read
from .sending import dispatch

KEEP = timedelta(days=30)
FORGET_SECONDS = 3600.0
_forgot_at = float("-inf")


@loops.loop("notify")
def notify() -> bool:
    """Make the messages of what is new and send what is due."""
    global _forgot_at
    more = read()
    dispatch(timezone.now())
    if time.monotonic() - _forgot_at > FORGET_SECONDS:
        _forgot_at = time.monotonic()
        Delivery.objects.filter(ended_at__lt=timezone.now() - KEEP).delete()
    return more
