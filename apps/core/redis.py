"""The process's one Redis client. Redis only wakes: every caller must be right without it."""

import logging
from collections.abc import Iterable
from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)


@cache
def client() -> redis.Redis:
    """A pooled client with short time-outs, so that a dead Redis costs little."""
    # One more try at once, for a pooled connection that broke; the library's own three would wait for seconds.
    retry = Retry(NoBackoff(), 1)
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=1, retry=retry)


def hint(action: str, *arguments: object) -> object | None:
    """Run one Redis command as a hint: a failure is logged and forgotten, the timers guarantee."""
    try:
        answer: object | None = client().execute_command(action, *arguments)  # type: ignore[no-untyped-call]
        return answer
    except redis.RedisError as error:
        logger.warning("Redis did not take %s: %s", action, error)
        return None


def hints(actions: Iterable[tuple[object, ...]]) -> None:
    """Run many Redis commands as hints, all in one round trip."""
    pipeline = client().pipeline(transaction=False)
    try:
        for action in actions:
            pipeline.execute_command(*action)  # type: ignore[no-untyped-call]
        pipeline.execute()
    except redis.RedisError as error:
        logger.warning("Redis did not take several commands: %s", error)
