"""The process's one Redis client. Redis only wakes: every caller must be right without it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import redis
from django.conf import settings
from django.db import connection, transaction
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


@dataclass(frozen=True, eq=False)
class Hint:
    """A command that a commit sends once, made of everything that the transaction named for it; `answered` gets what
    Redis says."""

    command: Callable[[set[str]], tuple[object, ...]]
    answered: Callable[[object], None] | None = None


class Commit:
    """The hints of one transaction: called when it commits, it sends them in one round trip."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[Hint, set[str]] = {}

    def __call__(self) -> None:
        pipeline = client().pipeline(transaction=False)
        for hint, names in self.names.items():
            pipeline.execute_command(*hint.command(names))  # type: ignore[no-untyped-call]
        try:
            answers = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            logger.warning("Redis did not take the hints of a commit: %s", error)
            return
        for hint, answer in zip(self.names, answers, strict=True):
            if isinstance(answer, redis.RedisError):
                logger.warning("Redis did not take a hint: %s", answer)
            elif hint.answered is not None:
                hint.answered(answer)


def hint_on_commit(hint: Hint, names: Iterable[str] = ()) -> None:
    """Send the hint with these names, and all others of the present transaction, when that commits."""
    depth = set(connection.savepoint_ids)
    for saved, function, *_ in connection.run_on_commit:
        if isinstance(function, Commit) and set(saved) == depth:
            function.names.setdefault(hint, set()).update(names)
            return
    commit = Commit()
    commit.names[hint] = set(names)
    transaction.on_commit(commit)
