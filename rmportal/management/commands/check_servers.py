"""`manage.py check_servers`: whether the PostgreSQL and the Redis that the environment names can be used."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import kombu.exceptions
import psycopg
import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from rmportal.celery import app

POSTGRESQL_OLDEST = 15
SECONDS = 5
FACTS = """
SELECT current_setting('server_version'), current_setting('server_encoding'), pg_is_in_recovery(),
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), current_user, current_database()
"""

# What Redis says to a client that gave no password; the library asks with HELLO first.
NO_PASSWORD = ("NOAUTH", "HELLO must be called", "Authentication required")


class Command(BaseCommand):
    help = "Connect to PostgreSQL and Redis once; say what is wrong with DATABASE_URL or REDIS_URL."
    requires_system_checks: Any = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "names", nargs="*", choices=CHECKS, default=list(CHECKS), metavar="postgres|redis"
        )

    def handle(self, *args: Any, names: list[str], **options: Any) -> None:
        found: list[str] = []
        wrong: list[str] = []
        for name in names:
            try:
                found.append(CHECKS[name]())
            except CommandError as error:
                wrong.append(str(error))
        if wrong:
            raise CommandError("\n".join(wrong))
        self.stdout.write("\n".join(found))


def postgresql() -> str:
    """What answers at DATABASE_URL; raises CommandError when it cannot be used."""
    parameters = {**connection.get_connection_params(), "connect_timeout": SECONDS}
    for own in ("cursor_factory", "context"):
        parameters.pop(own, None)
    try:
        with psycopg.connect(**parameters) as server:
            facts = server.execute(FACTS).fetchone()
            number = server.info.server_version
            place = f"{server.info.host}:{server.info.port}"
    except psycopg.Error as error:
        raise CommandError(f"DATABASE_URL: {reason(error)}") from None
    assert facts is not None
    version, encoding, standby, may_create, user, name = facts
    if number < POSTGRESQL_OLDEST * 10000:
        wrong = f"is PostgreSQL {version}; RMPortal needs {POSTGRESQL_OLDEST} or newer"
    elif standby:
        wrong = "is a standby that only reads; name the primary"
    elif encoding != "UTF8":
        wrong = f"has the encoding {encoding}; make it anew with ENCODING 'UTF8'"
    elif not may_create:
        wrong = f"lets {user} make no tables; as its owner: ALTER DATABASE {name} OWNER TO {user}"
    else:
        return f"PostgreSQL {version.split()[0]} at {place}"
    raise CommandError(f"DATABASE_URL: the database {name} at {place} {wrong}.")


def redis_server() -> str:
    """What answers at REDIS_URL; raises CommandError when it cannot be used, also by Celery, which reads it anew."""
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=SECONDS, socket_connect_timeout=SECONDS
        ) as client:
            version = client.info("server")["redis_version"]
            place = client.get_connection_kwargs()
        with app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=SECONDS)
    except (redis.RedisError, kombu.exceptions.KombuError, OSError, ValueError) as error:
        if any(words in str(error) for words in NO_PASSWORD):
            raise CommandError(
                "REDIS_URL: it wants a password: redis://:password@host:port/number."
            ) from None
        raise CommandError(f"REDIS_URL: {reason(error)}") from None
    return f"Redis {version} at {place.get('path') or '{host}:{port}'.format(**place)}"


def reason(error: BaseException) -> str:
    """A library's error as one line; neither library puts passwords into it.

    libpq tries with TLS and without, and tells of both.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    first, *more = text.split("connection to server ")
    return f"connection to server {more[-1]}" if more else first


CHECKS: dict[str, Callable[[], str]] = {"postgres": postgresql, "redis": redis_server}
