"""The one tree of errors that commands raise; every door maps it to its own form once.

The REST API renders them as `application/problem+json`, the console beside the field, `rmctl` as a line.
"""

from collections.abc import Sequence
from typing import TypedDict


class FieldError(TypedDict):
    """One thing wrong with the input: where, what, and a stable code."""

    field: str
    message: str
    code: str


class DomainError(Exception):
    """A refusal with a stable code. `status` is the HTTP status; nothing was changed."""

    status = 400
    code = "refused"
    title = "Refused"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.errors = list(errors)


class Invalid(DomainError):
    """The input is wrong; `errors` names each field."""

    status = 422
    code = "invalid"
    title = "Invalid input"

    @classmethod
    def field(cls, field: str, message: str, code: str = "invalid") -> "Invalid":
        """One wrong field."""
        return cls.fields([FieldError(field=field, message=message, code=code)])

    @classmethod
    def fields(cls, errors: Sequence[FieldError]) -> "Invalid":
        """Several wrong fields, at least one; the first is the summary."""
        first = errors[0]
        return cls(f"{first['field']}: {first['message']}", code=first["code"], errors=errors)


class Forbidden(DomainError):
    """The actor sees the object but may not do this."""

    status = 403
    code = "forbidden"
    title = "Not allowed"


class NotFound(DomainError):
    """There is no such object, or the actor may not know of it."""

    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(DomainError):
    """The object's present state or another object stands in the way."""

    status = 409
    code = "conflict"
    title = "Conflict"


class StaleState(Conflict):
    """A guarded transition met a state that is not among its sources."""

    code = "stale_state"


class Unauthenticated(DomainError):
    """No credential, or one that is wrong, expired or revoked."""

    status = 401
    code = "unauthenticated"
    title = "Sign in first"


class RateLimited(DomainError):
    """More in a given time than a rate allows; the same may be accepted after `retry_after` seconds."""

    status = 429
    code = "rate_exceeded"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after: int, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class TooLarge(DomainError):
    """The body is larger than accepted."""

    status = 413
    code = "too_large"
    title = "Too large"
