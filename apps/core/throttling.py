"""Rate limits counted in Redis, in fixed windows; without Redis everybody passes."""

import time
from typing import Any

import redis.exceptions
from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from . import redis as core_redis

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_rate(rate: str) -> tuple[int, int]:
    """`"20/min"` → (20 requests, 60 seconds)."""
    count, period = rate.split("/")
    return int(count), SECONDS[period[0]]


class UserRateThrottle(BaseThrottle):
    """Limits each person (each address where nobody is signed in) at the rate of the view's `rate_scope`.

    Leaves (limit, remaining, seconds until the window ends) on the request, for the RateLimit-* headers.
    """

    reset = 1

    def allow_request(self, request: Request, view: Any) -> bool:
        scope = getattr(view, "rate_scope", "user")
        rates: Any = settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"]
        limit, seconds = parse_rate(rates[scope])
        now = time.time()
        self.reset = seconds - int(now) % seconds
        # The address is the connection's: the server, told which proxies it may trust, has set it.
        who = (
            request.user.pk
            if scope == "user" and request.user.is_authenticated
            else request.META.get("REMOTE_ADDR")
        )
        key = f"rmportal:rate:{scope}:{who}:{int(now) // seconds}"
        try:
            with core_redis.client().pipeline(transaction=False) as pipeline:
                pipeline.incr(key)
                pipeline.expire(key, seconds)
                used, _ = pipeline.execute()
        except (redis.exceptions.RedisError, OSError):
            return True
        request._rate = (limit, max(0, limit - int(used)), self.reset)  # type: ignore[attr-defined]
        return int(used) <= limit

    def wait(self) -> float:
        return float(self.reset)
