"""Keyset pagination by id: a page costs the same wherever it lies and however long the table is.

Where a filter has no index, a page looks at SCAN_ROWS ids at most. It may then be short or empty although more follows:
`next` goes on where it stopped.
"""

import base64
import binascii
from typing import Any
from urllib.parse import urlencode

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from .errors import Invalid
from .serializers import MAX_INTEGER

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
PARAMETERS = ("cursor", "limit", "ordering")
SCAN_ROWS = 50_000


def scanned(rows: QuerySet[Any], start: int | None, *, descending: bool) -> tuple[QuerySet[Any], int | None]:
    """The rows among the SCAN_ROWS ids after `start`, and where to start for what follows; None when nothing does."""
    ids = rows.model._default_manager.order_by("-pk" if descending else "pk").values_list("pk", flat=True)

    def after(pk: int | None) -> int | None:
        if pk is None:
            return ids.first()
        return (ids.filter(pk__lt=pk) if descending else ids.filter(pk__gt=pk)).first()

    first = after(start)
    if first is None:
        return rows, None
    last = first - SCAN_ROWS + 1 if descending else first + SCAN_ROWS - 1
    following = after(last)
    rows = rows.filter(pk__gte=last) if descending else rows.filter(pk__lte=last)
    if following is None:
        return rows, None
    return rows, following + 1 if descending else following - 1


class CursorPagination:
    """`?cursor=&limit=&ordering=` → `{"next", "previous", "results"}`, ordered by `id` or `-id`; no COUNT."""

    def __init__(self, default_ordering: str = "-id", *, scans: bool = False) -> None:
        self.default_ordering = default_ordering
        self.scans = scans
        self.next: str | None = None
        self.previous: str | None = None

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any]:
        """The rows of the page that the request asks for; sets the links beside it."""
        limit = limit_of(request.query_params.get("limit"))
        ordering = request.query_params.get("ordering", self.default_ordering)
        if ordering not in ("id", "-id"):
            raise Invalid.field("ordering", f"{ordering!r} is not accepted: use id or -id.", "invalid_choice")
        backwards, position = _decode(request.query_params.get("cursor"))
        descending = (ordering == "-id") != backwards
        rows = queryset.order_by("-id" if descending else "id")
        if position is not None:
            rows = rows.filter(id__lt=position) if descending else rows.filter(id__gt=position)
        beyond = None
        if self.scans:
            rows, beyond = scanned(rows, position, descending=descending)
        found = list(rows[: limit + 1])
        page = found[:limit]
        onward = _id(page[-1]) if len(found) > limit else beyond
        back = None
        if position is not None and page:
            back = _id(page[0])
        elif position is not None and self.scans:
            back = position - 1 if descending else position + 1
        if backwards:
            page.reverse()
            onward, back = back, onward
        self.next = self._link(request, f"a{onward}") if onward is not None else None
        self.previous = self._link(request, f"b{back}") if back is not None else None
        return page

    def get_paginated_response(self, data: Any) -> Response:
        """The page with its links."""
        return Response({"next": self.next, "previous": self.previous, "results": data})

    @staticmethod
    def _link(request: Request, cursor: str) -> str:
        query = {name: value for name, value in request.query_params.lists() if name != "cursor"}
        query["cursor"] = [base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")]
        return request.build_absolute_uri(f"{request.path}?{urlencode(query, doseq=True)}")

    @staticmethod
    def get_paginated_response_schema(results: dict[str, Any]) -> dict[str, Any]:
        """OpenAPI for a page of `results`."""
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": results},
        }

    @staticmethod
    def get_schema_operation_parameters(_view: Any = None) -> list[dict[str, Any]]:
        """OpenAPI for the query parameters."""
        described = [
            (
                "cursor",
                "Where the page starts; taken from `next` or `previous`. Follow `next` until it is null.",
                {"type": "string"},
            ),
            (
                "limit",
                "Rows on a page.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
            ("ordering", "Oldest (`id`) or newest (`-id`) first.", {"type": "string", "enum": ["id", "-id"]}),
        ]
        return [
            {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
            for name, text, schema in described
        ]


def _id(row: Model | dict[str, Any]) -> int:
    return int(row["id"] if isinstance(row, dict) else row.pk)


def limit_of(raw: str | None) -> int:
    """How many rows a page is to have. Raises Invalid."""
    if raw is None:
        return DEFAULT_LIMIT
    if not (raw.isascii() and raw.isdigit() and len(raw) < 10 and 1 <= int(raw) <= MAX_LIMIT):
        raise Invalid.field("limit", f"a whole number from 1 to {MAX_LIMIT}.", "out_of_range")
    return int(raw)


def _decode(cursor: str | None) -> tuple[bool, int | None]:
    """(backwards, id) of a cursor; (False, None) without one."""
    if cursor is None:
        return False, None
    text = decoded(cursor)
    if text[:1] in ("a", "b") and text[1:].isdigit() and len(text) <= 20 and int(text[1:]) <= MAX_INTEGER:
        return text[0] == "b", int(text[1:])
    raise bad_cursor()


def decoded(cursor: str) -> str:
    """What a cursor says; nothing when no page gave it."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def bad_cursor() -> Invalid:
    """The refusal of a cursor that no page has given."""
    return Invalid.field("cursor", "is not one that a page gave: leave it out to start at the beginning.", "bad_cursor")
