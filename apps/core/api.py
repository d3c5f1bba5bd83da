"""The base of every API view: parse, call one command or query, answer.

    class Nodes(ApiView):
        @operation(listing=True, filters=NodeFilter, answer=NodeAnswer)
        def get(self, request):
            \"\"\"Nodes that you can see.\"\"\"
            return queries.list_nodes(self.actor)

    class Cordon(ApiView):
        @operation(body=ReasonBody, answer=NodeAnswer)
        def post(self, request, node_id):
            return commands.cordon_node(actor=self.actor, node_id=node_id, reason=self.data["reason"])

A handler returns an object (serialised by `answer`), a queryset (`listing=True`: one page of it), None (204),
or a finished response. Every mutation runs in one transaction, takes `Idempotency-Key`, and with
`?dry_run=1` does everything and keeps nothing. What the operation declares is all that a request may say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import exceptions, serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from . import idempotency
from .actors import ANONYMOUS, Actor
from .errors import FieldError, Invalid, TooLarge
from .filters import FilterSet, apply_filters
from .pagination import PARAMETERS, CursorPagination
from .serializers import (
    MAX_INTEGER,
    Integer,
    Nothing,
    ReasonBody,
    StrictJsonParser,
    StrictSerializer,
    Text,
    suggestion,
)

__all__ = [
    "ApiView",
    "FilterSet",
    "Integer",
    "Operation",
    "ReasonBody",
    "StrictSerializer",
    "Text",
    "operation",
    "register_actor_resolver",
]

MUTATIONS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of a view takes and answers; the same object validates requests and documents them."""

    # A StrictSerializer, or a pydantic model that the command itself validates (`self.data` is raw JSON).
    body: Any = None
    answer: Any = None
    status: int = 200
    listing: bool = False
    ordering: str = "-id"
    pagination: type[CursorPagination] = CursorPagination
    filters: type[FilterSet] | None = None
    # Query parameters besides filters, as a StrictSerializer; validated into `self.query`.
    query: type[StrictSerializer] | None = None
    # The body is read by the handler as a stream of this media type, with a limit of its own.
    stream: str = ""
    # Media type of an answer that is not JSON.
    produces: str = ""
    # False for requests whose repetition is harmless by construction or whose sender has no identity.
    idempotency: bool = True
    dry_run: bool = True
    # Why a caller may get 4xx besides what every operation answers; for the documentation only.
    refusals: tuple[int, ...] = ()


def operation(**options: Any) -> Callable[[Handler], Handler]:
    """Declare a handler; takes the fields of `Operation`."""
    declared = Operation(**options)

    def decorate(handler: Handler) -> Handler:
        handler.operation = declared  # type: ignore[attr-defined]
        return handler

    return decorate


def _nobody(_request: Any) -> Actor:
    return ANONYMOUS


_resolver: Callable[[Any], Actor] = _nobody


def register_actor_resolver(resolver: Callable[[Any], Actor]) -> None:
    """Tell the bases how a request becomes an actor; an app above core calls this when it is ready."""
    global _resolver
    _resolver = resolver


class JsonOnly(BaseContentNegotiation):
    """Answers are JSON or what the operation declares, whatever Accept says; requests are what they say."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The parser of the body's media type."""
        kind = (request.content_type or "").split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> tuple[Any, str]:
        """The first renderer."""
        return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """See the module's docstring. Handlers are named by the method, each an `operation`."""

    parser_classes: ClassVar[Any] = [StrictJsonParser]
    content_negotiation_class = JsonOnly
    # Key of DEFAULT_THROTTLE_RATES.
    rate_scope: ClassVar[str] = "user"
    data: Any
    query: dict[str, Any]

    @property
    def actor(self) -> Actor:
        """Who asks."""
        return _resolver(self.request)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be kept; handlers with effects outside the database look at it."""
        return self.request.query_params.get("dry_run") == "1"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """As in the base class, with the operation's checks and the mutation's transaction around it."""
        self.args, self.kwargs = args, kwargs
        self.request = wrapped = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        response: Any
        try:
            self._limit_body(request)
            self.initial(wrapped, *args, **kwargs)
            handler = getattr(self, str(wrapped.method).lower(), self.http_method_not_allowed)
            declared = getattr(handler, "operation", None)
            if declared is None:
                response = handler(wrapped, *args, **kwargs)
            elif wrapped.method in MUTATIONS:
                response = self._mutate(declared, handler)
            else:
                response = self._respond(declared, self._call(declared, handler))
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(wrapped, response, *args, **kwargs)
        return self.response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        for value in kwargs.values():
            if (isinstance(value, int) and value > MAX_INTEGER) or (
                isinstance(value, str) and "\x00" in value
            ):
                raise Http404

    def _declared(self, request: HttpRequest) -> Operation | None:
        handler = getattr(self, str(request.method).lower(), None)
        return getattr(handler, "operation", None)

    def _limit_body(self, request: HttpRequest) -> None:
        """Read the body up to the limit, before anything else may read all of it."""
        declared = self._declared(request)
        if request.method not in MUTATIONS or (declared is not None and declared.stream):
            return
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not hasattr(request, "_body") and not (length.isdigit() and int(length) > limit):
            # A chunked body has no declared length: never read more of it than one byte over.
            request._body = request.read(limit + 1)  # type: ignore[attr-defined]
        if not hasattr(request, "_body") or len(request.body) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.")

    def _mutate(self, declared: Operation, handler: Callable[..., Any]) -> Any:
        """Run the handler in one transaction, once for an idempotency key, or for show.

        What is not kept for a key is answered once it is committed, so that what it wakes need not wait for the words.
        """
        dry_run = self._dry_run_wanted(declared)
        with transaction.atomic():
            record = None
            key = (
                idempotency.key_of(self.request, self.actor) if declared.idempotency and not dry_run else None
            )
            if key is not None:
                body = None if declared.stream else self.request._request.body
                print_ = idempotency.fingerprint(self.request, self.actor, body)
                record, stored = idempotency.claim(self.actor, key, print_)
                if stored is not None:
                    return stored
            result = self._call(declared, handler)
            if record is not None:
                result = self._respond(declared, result)
                if isinstance(result, Response):
                    idempotency.keep(record, result)
            elif dry_run:
                result = self._respond(declared, result)
                result["X-Dry-Run"] = "true"
                transaction.set_rollback(True)
        return self._respond(declared, result)

    def _dry_run_wanted(self, declared: Operation) -> bool:
        raw = self.request.query_params.get("dry_run", "0")
        if raw not in ("0", "1") or (raw == "1" and not declared.dry_run):
            raise Invalid.field(
                "dry_run", "0 or 1." if declared.dry_run else "is not offered here.", "invalid_choice"
            )
        return raw == "1"

    def _call(self, declared: Operation, handler: Callable[..., Any]) -> Any:
        self._read_query(declared)
        if self.request.method in MUTATIONS and not declared.stream:
            self._read_body(declared)
        return handler(self.request, *self.args, **self.kwargs)

    def _respond(self, declared: Operation, result: Any) -> Any:
        if isinstance(result, HttpResponseBase):
            return result
        if declared.listing:
            return self._page(declared, result)
        if result is None:
            return Response(status=204)
        data = result if declared.answer is None else declared.answer(result, context={"view": self}).data
        return Response(data, status=declared.status)

    def _page(self, declared: Operation, result: Any) -> Response:
        if isinstance(result, QuerySet):
            result = self.paginate(result)
        data = declared.answer(result, many=True, context={"view": self}).data
        return self.paginator.get_paginated_response(data)

    def paginate(self, rows: QuerySet[Any]) -> list[Any]:
        """Filter the rows and take the page asked for; a handler calls it to add something to the rows."""
        declared = self._declared(self.request._request)
        assert declared is not None
        if declared.filters is not None:
            rows = apply_filters(declared.filters, self.request.query_params, rows)
        scans = declared.filters is not None and declared.filters.scans(self.request.query_params)
        self.paginator = declared.pagination(declared.ordering, scans=scans)
        return self.paginator.paginate_queryset(rows, self.request, self)

    def _read_query(self, declared: Operation) -> None:
        known = set(declared.filters.names()) if declared.filters else set()
        if declared.listing:
            known.update(PARAMETERS)
        if self.request.method in MUTATIONS and declared.dry_run:
            known.add("dry_run")
        mine = set(declared.query().fields) if declared.query else set()
        errors = [
            FieldError(
                field=name,
                message=f"There is no such query parameter; {suggestion(name, known | mine)}",
                code="unknown_parameter",
            )
            for name in self.request.query_params
            if name not in known | mine
        ]
        if errors:
            raise Invalid.fields(errors)
        if declared.query is not None:
            given = {name: value for name, value in self.request.query_params.items() if name in mine}
            self.query = _validated(declared.query, given)

    def _read_body(self, declared: Operation) -> None:
        raw = self._json()
        body = declared.body or Nothing
        if not issubclass(body, serializers.BaseSerializer):
            if not isinstance(raw, dict):
                raise Invalid("The body must be a JSON object.", code="not_an_object")
            self.data = raw
            return
        self.data = _validated(body, raw)

    def _json(self) -> Any:
        """The parsed body; an empty one is `{}`, and one of an unknown media type is refused."""
        if not self.request._request.body:
            return {}
        if not self.request.content_type:
            raise exceptions.UnsupportedMediaType("none")
        return self.request.data

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        rate = getattr(request, "_rate", None)
        if rate is not None:
            response["RateLimit-Limit"], response["RateLimit-Remaining"], response["RateLimit-Reset"] = rate
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _validated(serializer_class: Any, raw: Any) -> Any:
    serializer = serializer_class(data=raw)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data
