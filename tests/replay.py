"""Rows that commands have made once, put back in one statement: what most tests begin with costs next to nothing."""

import json
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from django.db import connection
from django.utils import timezone
from psycopg import sql

T = TypeVar("T")
# Their rows come with the migrations.
STANDING = {"django_migrations", "django_content_type", "auth_permission"}
# The database itself says which transaction has written a row.
GIVEN_ANEW = {("events_event", "xid")}
# Stands in the statements for what is added to every time.
SINCE = sql.SQL("interval 'since it was made'")


class Replay(Generic[T]):
    """Calls `make` once in a process, and from then on inserts the rows that it had made: the same ids, and times as if
    it had been called now.

    In a test that commits `make` is called every time, as its commits have effects beside rows.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make
        self.made: bytes | None = None
        self.made_at: datetime = timezone.now()
        self.statements = ""

    def __call__(self) -> T:
        if not connection.in_atomic_block:
            return self.make()
        if self.made is None:
            if written():
                return self.make()
            made = self.make()
            self.made, self.made_at = pickle.dumps(made), timezone.now()
            self.statements = ";".join(map(inserts, written()))
            return made
        since = f"interval '{(timezone.now() - self.made_at).total_seconds():.6f} s'"
        with connection.cursor() as cursor:
            cursor.execute(self.statements.replace(SINCE.as_string(), since))
        kept: T = pickle.loads(self.made)
        return kept


def written() -> list[str]:
    """The tables that have rows beside those of the migrations."""
    tables = sorted(set(connection.introspection.table_names()) - STANDING)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM \"{name}\")" for name in tables))
        return [row[0] for row in cursor.fetchall()]


def inserts(table: str) -> str:
    """SQL that puts the rows of a table back, and lets its sequence give none of their ids again."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT json_agg(t)::text, pg_get_serial_sequence('{table}', 'id') FROM \"{table}\" AS t")
        text, sequence = cursor.fetchone()
        cursor.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_name = %s AND data_type = 'timestamp with time zone'",
            [table],
        )
        times = {row[0] for row in cursor.fetchall()}
        rows = json.loads(text)
        columns = {name: sql.Identifier(name) for name in rows[0] if (table, name) not in GIVEN_ANEW}
        values = [
            sql.SQL("{} + {}").format(column, SINCE) if name in times else column for name, column in columns.items()
        ]
        insert = sql.SQL(
            "INSERT INTO {0} ({1}) OVERRIDING SYSTEM VALUE SELECT {2} FROM json_populate_recordset(NULL::{0}, {3});"
            "SELECT setval({4}, greatest(nextval({4}), {5}))"
        ).format(
            sql.Identifier(table),
            sql.SQL(", ").join(columns.values()),
            sql.SQL(", ").join(values),
            sql.Literal(text),
            sql.Literal(sequence),
            sql.Literal(max(row["id"] for row in rows)),
        )
        return insert.as_string(cursor.connection)
