"""Bulk UPDATE with a different value for each row, in one statement."""

from collections.abc import Sequence
from typing import Any

from django.db import connection, models


def update_rows(
    model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, guard: str | None = None
) -> list[int]:
    """Set `columns` of the rows whose primary key is the first item of each row; returns the keys updated.

    With `guard` (a column), the last item of each row is the value that this column must still have; a row
    that has moved meanwhile is left alone and its key is not returned. Rows are locked in the order of their
    keys, so that two such statements never wait for each other in a circle.
    """
    if not rows:
        return []
    meta = model._meta
    names = [meta.pk.name, *columns, *([guard] if guard else [])]
    fields: list[Any] = [meta.get_field(name) for name in names]
    parameters = []
    for field, values in zip(fields, zip(*rows, strict=True), strict=True):
        parameters.append([field.get_db_prep_save(value, connection) for value in values])
    alias = [f"v{position}" for position in range(len(names))]
    unnest = ", ".join(f"%s::{_array_type(field)}[]" for field in fields)
    quote = connection.ops.quote_name
    assignments = ", ".join(
        f"{quote(field.column)} = v.{name}"
        for field, name in zip(fields[1 : len(columns) + 1], alias[1 : len(columns) + 1], strict=True)
    )
    condition = f"t.{quote(fields[0].column)} = v.v0"
    if guard:
        condition += f" AND t.{quote(fields[-1].column)} = v.{alias[-1]}"
    table, key = quote(meta.db_table), quote(fields[0].column)
    sql = (
        f"UPDATE {table} AS t SET {assignments} FROM (SELECT v.* FROM unnest({unnest}) AS v({', '.join(alias)}) "
        f"JOIN {table} AS l ON l.{key} = v.v0 ORDER BY l.{key} FOR NO KEY UPDATE OF l) AS v "
        f"WHERE {condition} RETURNING t.{key}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [row[0] for row in cursor.fetchall()]


def _array_type(field: Any) -> str:
    """The plain PostgreSQL type of a field (serial and identity columns are their integer type)."""
    return str(field.rel_db_type(connection) if field.primary_key else field.db_type(connection)).split(" GENERATED")[0]
