"""Pages of the event log for those who follow it: every event comes exactly once, whatever order transactions end in.

A follower reads in rounds. A round has the events of the transactions from one horizon to the next, which have all
ended, in the order of their ids; so its pages are ranges of whatever index serves the filters, and none of them has an
order by transactions. The cursor holds the round with the place in it, and what the floor of the next one is taken from
(`horizon`): nothing is kept for a follower.
"""

from dataclasses import astuple, dataclass, replace
from typing import Any, Self

from django.db import connection
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.pagination import CursorPagination, bad_cursor, decoded, limit_of, scanned
from apps.core.serializers import MAX_INTEGER

from .horizon import MARGIN, Position, position
from .models import Event
from .queries import SKEW, first_id_since


@dataclass(frozen=True, slots=True)
class Place:
    """Where a follower is: it has all events of transactions before `low`, and of those before `high` the ones up to
    the id `after`. No other event has an id up to `floor`, and none of a transaction from `mark_xid` on one up to
    `mark_id`, but for MARGIN."""

    low: int
    high: int
    after: int
    floor: int
    mark_xid: int
    mark_id: int

    @classmethod
    def beginning(cls) -> tuple[Self, Position]:
        """Before everything, and where the log ends for now."""
        with connection.cursor() as cursor:
            # Before the snapshot: what is open in that one began after this time.
            cursor.execute(
                "SELECT least(clock_timestamp(), min(xact_start)) FROM pg_stat_activity "
                "WHERE datname = current_database()"
            )
            [oldest] = cursor.fetchone() or ()
        here = position()
        mark = min(here.last, first_id_since(oldest - SKEW) - 1)
        return cls(0, here.horizon, 0, 0, here.horizon, mark), here

    def following(self, here: Position) -> Self:
        """The beginning of the next round."""
        floor, mark = self.floor, (self.mark_xid, self.mark_id)
        if self.high >= self.mark_xid:
            floor, mark = max(floor, self.mark_id - MARGIN), (here.following, here.last)
        return type(self)(self.high, here.horizon, 0, floor, *mark)

    def __str__(self) -> str:
        return "f" + ".".join(map(str, astuple(self)))


class FollowedPagination(CursorPagination):
    """As the base class, with `follow` in each page: where to go on, now or later, with `settled=true&ordering=id`."""

    follow: str | None = None

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any]:
        query = request.query_params
        if query.get("settled", "").lower() != "true" or query.get("ordering", self.default_ordering) != "id":
            return super().paginate_queryset(queryset, request, view)
        limit = limit_of(query.get("limit"))
        place, here = _place(query.get("cursor"))
        found: list[Event] = []
        more = True
        while more and len(found) < limit:
            some, onward = self._read(queryset, place, limit - len(found))
            found += some
            if onward is not None:
                place = onward
                break
            more = place.high < here.horizon
            place = place.following(here)
        self.follow = self._link(request, str(place))
        self.next = self.follow if more else None
        return found

    def _read(self, events: QuerySet[Event], place: Place, count: int) -> tuple[list[Event], Place | None]:
        """The next events of the round, and the place behind them; None when it has no more."""
        start = max(place.after, place.floor)
        rows = events.filter(xid__gte=place.low, xid__lt=place.high, pk__gt=start).order_by("pk")
        beyond = None
        if self.scans:
            rows, beyond = scanned(rows, start, descending=False)
        found = list(rows[: count + 1])
        if len(found) > count:
            return found[:count], replace(place, after=found[count - 1].pk)
        return found, None if beyond is None else replace(place, after=beyond)

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self.next, "previous": self.previous, "follow": self.follow, "results": data})

    @staticmethod
    def get_paginated_response_schema(results: dict[str, Any]) -> dict[str, Any]:
        schema = CursorPagination.get_paginated_response_schema(results)
        text = "With `settled=true&ordering=id`: where to go on when more has happened."
        link = {**schema["properties"]["next"], "description": text}
        return {
            **schema,
            "required": [*schema["required"], "follow"],
            "properties": {**schema["properties"], "follow": link},
        }


def _place(cursor: str | None) -> tuple[Place, Position]:
    """The place that a cursor names, and where the log ends for now."""
    if cursor is None:
        return Place.beginning()
    text = decoded(cursor)
    numbers = text[1:].split(".")
    if not all(number.isdigit() and len(number) < 20 and int(number) <= MAX_INTEGER for number in numbers):
        raise bad_cursor()
    if text[:1] == "a" and len(numbers) == 1:  # Of a list that was not followed.
        place, here = Place.beginning()
        return replace(place, after=int(numbers[0])), here
    if text[:1] != "f" or len(numbers) != 6:
        raise bad_cursor()
    place, here = Place(*map(int, numbers)), position()
    if place.high > here.horizon:
        # A database that was restored elsewhere counts its transactions anew.
        raise bad_cursor()
    return place, here
