"""Every refusal of the API as `application/problem+json` (RFC 9457) with a stable code, never a trace."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from rmctl.spec.errors import FAULTS_TOLD

from .errors import DomainError, FieldError, RateLimited

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
UNAVAILABLE_RETRY_SECONDS = 2
# Codes of the framework's refusals; ours carry their own.
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    title: str | None = None,
    errors: Sequence[FieldError] = (),
) -> dict[str, Any]:
    """The body of a refusal."""
    return {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "code": code or CODES.get(status, "refused"),
        "detail": detail,
        "errors": list(errors[:FAULTS_TOLD]),
    }


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Django REST framework's hook: the response for an exception, or None for one that is our mistake."""
    found = _classify(exc)
    if found is None:
        return None
    body, headers = found
    return Response(body, status=body["status"], headers=headers, content_type=CONTENT_TYPE)


def _classify(exc: Exception) -> tuple[dict[str, Any], dict[str, str]] | None:
    if isinstance(exc, DomainError):
        headers = {"WWW-Authenticate": 'Bearer realm="rmportal"'} if exc.status == 401 else {}
        if isinstance(exc, RateLimited):
            headers["Retry-After"] = str(exc.retry_after)
        return problem(exc.status, exc.detail, code=exc.code, title=exc.title, errors=exc.errors), headers
    if isinstance(exc, exceptions.ValidationError):
        return invalid(list(field_errors(exc.detail))), {}
    if isinstance(exc, exceptions.APIException):
        return _framework(exc)
    if isinstance(exc, DjangoValidationError):
        messages = exc.message_dict if hasattr(exc, "error_dict") else {"": exc.messages}
        return invalid(list(field_errors(messages))), {}
    if isinstance(exc, Http404):
        return problem(404, "There is nothing here."), {}
    if isinstance(exc, PermissionDenied):
        return problem(403, str(exc) or "You may not do this."), {}
    if isinstance(exc, RequestDataTooBig):
        return problem(413, "The body is larger than accepted."), {}
    if isinstance(exc, BadRequest | SuspiciousOperation):
        return problem(400, "The request cannot be read."), {}
    if isinstance(exc, OperationalError | InterfaceError):
        logger.error("The database did not answer: %s", exc)
        body = problem(503, "The database is busy or away: nothing was changed, try again.")
        return body, {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)}
    return None


def _framework(exc: exceptions.APIException) -> tuple[dict[str, Any], dict[str, str]]:
    headers = {}
    code = CODES.get(exc.status_code)
    if getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = exc.auth_header  # type: ignore[attr-defined]
    if isinstance(exc, exceptions.Throttled):
        headers["Retry-After"] = str(max(1, int(getattr(exc, "wait", None) or 1)))
    if isinstance(exc, exceptions.ParseError):
        code = "malformed_json"
    return problem(exc.status_code, str(exc.detail), code=code), headers


def invalid(errors: list[FieldError]) -> dict[str, Any]:
    """The 422 for wrong fields; the first one is the summary."""
    first = errors[0] if errors else FieldError(field="", message="The input is not valid.", code="invalid")
    detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
    return problem(422, detail, code=first["code"], title="Invalid input", errors=errors)


def field_errors(detail: Any, path: str = "") -> Iterator[FieldError]:
    """Flatten the framework's nested errors into `errors[]` with paths such as `groups[0].env`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            # A list field's errors are keyed by position, an object's own errors by these two names.
            here = "" if name in ("non_field_errors", "__all__") else str(name)
            if isinstance(name, int):
                yield from field_errors(inner, f"{path}[{name}]")
            else:
                yield from field_errors(inner, ".".join(part for part in (path, here) if part))
    elif isinstance(detail, list | tuple):
        for position, inner in enumerate(detail):
            nested = isinstance(inner, Mapping)
            yield from field_errors(inner, f"{path}[{position}]" if nested else path)
    else:
        yield FieldError(
            field=path, message=str(detail), code=str(getattr(detail, "code", None) or "invalid")
        )


def wants_problem(request: HttpRequest) -> bool:
    """Whether the path belongs to the API rather than to a page."""
    return request.path.startswith("/api/")


def problem_response(status: int, detail: str) -> HttpResponse:
    """The same for requests that never reached an API view (unknown path, crash)."""
    return JsonResponse(problem(status, detail), status=status, content_type=CONTENT_TYPE)
