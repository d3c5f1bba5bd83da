"""Reading the hottest rows by statements that are written once.

The ORM makes a query anew for every call, which takes longer than PostgreSQL does to answer one of a few rows. Where
people wait for a loop or an agent's report, the statement stands in the code and its rows come from here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from django.db import connection, models
from django.utils.functional import cached_property

Row = TypeVar("Row", bound=models.Model)


class Answer(Sequence[tuple[Any, ...]]):
    """The rows of a statement that was sent; they are fetched when they are looked at, so that in a pipeline nobody
    waits for them before. JSON comes as text."""

    def __init__(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute(sql, parameters)

    # Not that of functools: until Python 3.12 it lets one thread of the process at a time wait for its answer.
    @cached_property
    def _rows(self) -> list[tuple[Any, ...]]:
        with self._cursor as cursor:
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._rows[place]


def fetch(sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of one statement; JSON comes as text."""
    return list(Answer(sql, parameters))


class Part(Generic[Row]):
    """Some columns of a model, as a statement reads them: `columns` is the text for it, `make` the object of them.

    The object has these columns only; any other is read from the database when it is asked for.
    """

    def __init__(self, model: type[Row], alias: str, *names: str) -> None:
        """`alias` is what the statement calls the table; `names` are attributes, as `tenant_id`."""
        fields = [field for field in model._meta.concrete_fields if field.attname in names]
        assert len(fields) == len(names), f"{model.__name__} has not all of {names}"
        self._model = model
        self._names = [field.attname for field in fields]
        self._json = [place for place, field in enumerate(fields) if isinstance(field, models.JSONField)]
        # No name of ours needs more than quotes; asking the connection would open one while modules are loaded.
        self.columns = ", ".join(f'{alias}."{field.column}"' for field in fields)
        self.width = len(fields)

    def make(self, values: Sequence[Any]) -> Row:
        """The object of these columns, in the order of `columns`."""
        mine = list(values)
        for place in self._json:
            if mine[place] is not None:
                mine[place] = msgspec.json.decode(mine[place])
        return self._model.from_db(connection.alias, self._names, mine)
