"""Many rows in one statement: inserts, and updates with a different value for each row.

The values travel as one JSON parameter. PostgreSQL takes it apart into typed columns, which costs a fraction of
what dumping an array for each column costs in Python. The keys that come back are fetched when they are looked at, so
that in a pipeline (`apps.core.pipeline`) nobody waits for them before.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
from django.db import connection, models
from django.db.models.fields import NOT_PROVIDED

from .rows import Answer

# Rows of one statement.
BATCH = 2000
Row = TypeVar("Row", bound=models.Model)


def insert(objects: Iterable[Row]) -> list[Row]:
    """Insert new objects of one model and set their keys; returns them.

    Columns with a default of the database get that. Unlike `bulk_create` this looks at nothing but the columns.
    """
    new = list(objects)
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        for item, (pk,) in zip(batch, _insert(batch), strict=True):
            item.pk, item._state.adding, item._state.db = pk, False, connection.alias
    return new


def append(objects: Iterable[models.Model]) -> None:
    """The same for objects whose keys nobody asks for: in a pipeline nothing is waited for."""
    new = list(objects)
    for start in range(0, len(new), BATCH):
        _insert(new[start : start + BATCH])


def _insert(objects: Sequence[models.Model]) -> Answer:
    model = type(objects[0])
    attributes = _insertable(model)
    names, types = _columns(model, attributes)
    table, key = (connection.ops.quote_name(name) for name in (model._meta.db_table, model._meta.pk.column))
    sql = (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT v.* FROM jsonb_to_recordset(%s::jsonb) "
        f"AS v({_record(types)}) RETURNING {key}"
    )
    return _run(sql, [[getattr(item, name) for name in attributes] for item in objects])


def update_rows(
    model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, guard: str | None = None
) -> Sequence[tuple[int]]:
    """Set `columns` of the rows whose primary key is the first item of each row; returns their keys, each in a row.

    With `guard` (a column), the last item of each row is the value that this column must still have; a row
    that has moved meanwhile is left alone and its key is not returned. Rows are locked in the order of their
    keys, so that two such statements never wait for each other in a circle.
    """
    if not rows:
        return ()
    names, types = _columns(model, (model._meta.pk.name, *columns, *([guard] if guard else [])))
    table, key = connection.ops.quote_name(model._meta.db_table), names[0]
    assignments = ", ".join(f"{name} = v.v{place}" for place, name in enumerate(names[1 : len(columns) + 1], 1))
    condition = f"t.{key} = v.v0"
    if guard:
        condition += f" AND t.{names[-1]} = v.v{len(names) - 1}"
    sql = (
        f"UPDATE {table} AS t SET {assignments} FROM (SELECT v.* FROM jsonb_to_recordset(%s::jsonb) "
        f"AS v({_record(types)}) JOIN {table} AS l ON l.{key} = v.v0 ORDER BY l.{key} FOR NO KEY UPDATE OF l) AS v "
        f"WHERE {condition} RETURNING t.{key}"
    )
    return _run(sql, rows)


def as_json(value: Any) -> str:
    """A parameter for `jsonb_to_recordset` and the like."""
    return msgspec.json.encode(value).decode()


def _run(sql: str, rows: Sequence[Sequence[Any]]) -> Answer:
    """Send a statement that takes the rows apart as v0, v1, …"""
    names = [f"v{place}" for place in range(len(rows[0]))]
    return Answer(sql, [as_json([dict(zip(names, row, strict=True)) for row in rows])])


@cache
def _insertable(model: type[models.Model]) -> tuple[str, ...]:
    return tuple(
        field.attname
        for field in model._meta.concrete_fields
        if not field.primary_key and field.db_default is NOT_PROVIDED
    )


def _record(types: Sequence[str]) -> str:
    return ", ".join(f"v{place} {kind}" for place, kind in enumerate(types))


@cache
def _columns(model: type[models.Model], fields: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The quoted columns of the fields and their plain types (serial and identity columns are integers)."""
    found: list[Any] = [model._meta.get_field(name) for name in fields]
    types = [field.rel_db_type(connection) if field.primary_key else field.db_type(connection) for field in found]
    return (
        [connection.ops.quote_name(field.column) for field in found],
        [str(kind).split(" GENERATED")[0] for kind in types],
    )
