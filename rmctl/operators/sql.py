"""One SQL statement: `python -m rmctl.operators.sql`, made by `sql(…)` in a DAG file. Needs SQLAlchemy (`rmctl[sql]`)
and the database's driver on the node."""

import csv
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from rmctl.sdk.runtime import artifact
from rmctl.stored import Connection, connection

from . import Refused, main

DEFAULT_ROWS = 1000


def operate(inputs: dict[str, Any]) -> Any:
    """Run the statement in a transaction: its rows as a list of objects, or how many it changed.

    With an artifact the rows are in that CSV file. Raises Refused for what the database refuses.
    """
    try:
        import sqlalchemy
    except ImportError:
        raise Refused("sqlalchemy is not installed on this node; install rmctl[sql] there.", final=True) from None
    try:
        engine = sqlalchemy.create_engine(_address(connection(inputs["connection"])), poolclass=sqlalchemy.NullPool)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise Refused(f"connection {inputs['connection']}: {error}", final=True) from None
    statement = sqlalchemy.text(inputs["statement"])
    try:
        with engine.begin() as opened:
            streamed = opened.execution_options(stream_results=bool(inputs.get("artifact")))
            result = streamed.execute(statement, inputs.get("parameters") or {})
            if not result.returns_rows:
                print(f"{result.rowcount} rows")
                return {"rowcount": result.rowcount}
            return _rows(result, inputs)
    except sqlalchemy.exc.OperationalError as error:
        raise Refused(str(error.orig)) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise Refused(str(getattr(error, "orig", None) or error), final=True) from None


def _address(found: Connection) -> Any:
    """A connection as SQLAlchemy's URL; texts in `extra` are its query."""
    from sqlalchemy import URL

    query = {name: value for name, value in found.extra.items() if isinstance(value, str)}
    return URL.create(
        found.conn_type, found.login or None, found.password or None, found.host or None, found.port,
        found.schema or None, query,
    )  # fmt: skip


def _rows(result: Any, inputs: dict[str, Any]) -> Any:
    columns = list(result.keys())
    if inputs.get("artifact"):
        count = 0
        with artifact(inputs["artifact"]).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            for row in result:
                writer.writerow(row)
                count += 1
        print(f"{count} rows in {inputs['artifact']}")
        return {"artifact": inputs["artifact"], "rows": count, "columns": columns}
    limit = int(inputs.get("rows") or DEFAULT_ROWS)
    rows = result.fetchmany(limit + 1)
    if len(rows) > limit:
        said = f"there are more than {limit} rows: raise rows, or keep them with artifact='name.csv'."
        raise Refused(said, final=True)
    print(f"{len(rows)} rows")
    return [{name: _plain(value) for name, value in zip(columns, row, strict=True)} for row in rows]


def _plain(value: Any) -> Any:
    """A value of a database as JSON: times in ISO form, decimals as text, so that they stay exact."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return value


if __name__ == "__main__":
    main(operate)
