"""OpenAPI 3.1 out of the operations that views declare."""

from typing import Any

from django import forms
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from .api import MUTATIONS, Operation
from .filters import FilterSet
from .idempotency import HEADER, MAX_KEY
from .problems import CONTENT_TYPE
from .serializers import MAX_INTEGER, Nothing, StrictSerializer

PROBLEM = {
    "type": "object",
    "description": "A refusal (RFC 9457); `code` is stable, nothing was changed.",
    "required": ["type", "title", "status", "code", "detail", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message", "code"],
                "properties": {name: {"type": "string"} for name in ("field", "message", "code")},
            },
        },
    },
}
REFUSALS = {
    400: "The request cannot be read.",
    401: "Sign in first.",
    403: "Not allowed.",
    404: "There is no such object that you can see.",
    409: "The present state stands in the way.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "The input is wrong; `errors` names each field.",
    429: "Too many requests; see `Retry-After`.",
    503: "The database is busy or away; try again.",
}
FIELD_TYPES: list[tuple[type[forms.Field], dict[str, Any]]] = [
    (forms.IntegerField, {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}),
    (forms.NullBooleanField, {"type": "boolean"}),
    (forms.DateTimeField, {"type": "string", "format": "date-time"}),
    (forms.CharField, {"type": "string"}),
]


class Schema(AutoSchema):
    """Reads `Operation` objects; nothing is guessed."""

    @property
    def declared(self) -> Operation:
        """The operation of the method that is being described."""
        found = getattr(getattr(self.view, self.method.lower()), "operation", None)
        assert isinstance(found, Operation), f"{type(self.view).__name__} declares no {self.method.lower()}"
        return found

    def is_excluded(self) -> bool:
        handler = getattr(self.view, self.method.lower(), None)
        return getattr(handler, "operation", None) is None

    def get_summary(self) -> str:
        text = getattr(self.view, self.method.lower()).__doc__ or ""
        return text.strip().split("\n")[0].rstrip(".")

    def get_description(self) -> str:
        text = getattr(self.view, self.method.lower()).__doc__ or ""
        return "\n".join(line.strip() for line in text.strip().split("\n")[1:]).strip()

    def get_request_serializer(self) -> Any:
        if self.declared.stream:
            return {self.declared.stream: OpenApiTypes.BINARY}
        return self.declared.body

    def get_response_serializers(self) -> Any:
        declared = self.declared
        if declared.produces:
            return {(declared.status, declared.produces): OpenApiTypes.BINARY}
        if declared.answer is None:
            empty = declared.status == 204 or self.method == "DELETE"
            return {
                204 if empty else declared.status: OpenApiResponse(
                    description="No content" if empty else "Done"
                )
            }
        answer = force_instance(declared.answer) if not declared.listing else declared.answer(many=True)
        return {declared.status: answer}

    def _get_paginator(self) -> Any:
        return self.declared.pagination() if self.declared.listing else None

    def get_filter_backends(self) -> list[Any]:
        return []

    def get_override_parameters(self) -> list[Any]:
        declared = self.declared
        found: list[Any] = []
        if declared.filters is not None:
            found += [_filter_parameter(declared.filters, name) for name in declared.filters.names()]
        if declared.query is not None:
            found.append(declared.query)
        if self.method in MUTATIONS and declared.idempotency:
            found.append(
                OpenApiParameter(
                    HEADER,
                    {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[ -~]+$"},  # type: ignore[arg-type]
                    OpenApiParameter.HEADER,
                    description="A repetition with the same key gets the first answer and does nothing more.",
                )
            )
        if self.method in MUTATIONS and declared.dry_run:
            found.append(
                OpenApiParameter(
                    "dry_run", str, enum=["0", "1"], description="1: do everything and keep nothing."
                )
            )
        return found

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        component = ResolvedComponent("Problem", ResolvedComponent.SCHEMA, object="Problem", schema=PROBLEM)
        self.registry.register_on_missing(component)
        for status in self._refusals():
            bodies.setdefault(
                str(status),
                {"description": REFUSALS[status], "content": {CONTENT_TYPE: {"schema": component.ref}}},
            )
        return bodies

    def _refusals(self) -> list[int]:
        common = {401, 403, 404, 422, 429, 503}
        if self.method in MUTATIONS:
            common |= {400, 409, 413, 415}
        return sorted(common | set(self.declared.refusals))

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)
        if direction == "request" and isinstance(force_instance(serializer), StrictSerializer):
            schema["additionalProperties"] = False
        return schema

    def _get_request_body(self, direction: Any = "request") -> Any:
        if not self.declared.stream and self.declared.body in (None, Nothing):
            return None
        return super()._get_request_body(direction)


def _filter_parameter(filters: type[FilterSet], name: str) -> OpenApiParameter:
    found = filters.base_filters[name]
    field = found.field
    choices = [str(value) for value, _ in getattr(field, "choices", []) if value != ""]
    schema: dict[str, Any] = {"type": "string"}
    if choices and not isinstance(field, forms.NullBooleanField):
        schema = {"type": "string", "enum": choices}
    else:
        schema = next((known for kind, known in FIELD_TYPES if isinstance(field, kind)), schema)
    if isinstance(field, forms.MultipleChoiceField):
        schema = {"type": "array", "items": schema}
    text = found.extra.get("help_text") or found.label or ""
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=str(text))  # type: ignore[arg-type]
