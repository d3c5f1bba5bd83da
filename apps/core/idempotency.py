"""Mutations that may be repeated: the first answer is stored in the mutation's own transaction."""

import hashlib
import json
from datetime import datetime
from typing import Any

from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from .actors import Actor
from .crypto import seal, unseal
from .errors import Invalid
from .models import IdempotencyRecord

HEADER = "Idempotency-Key"
MAX_KEY = 200
KEEP_HOURS = 24


def key_of(request: Request, actor: Actor) -> str | None:
    """The request's key, or None; nobody in particular has no place of their own to keep answers in."""
    key = request.headers.get(HEADER)
    if key is None or actor.user_id is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise Invalid.field(HEADER, f"1 to {MAX_KEY} printable ASCII characters.", "bad_idempotency_key")
    return key


def fingerprint(request: Request, actor: Actor, body: bytes | None) -> str:
    """What makes two requests the same one: method, address, scopes and body.

    `body` is None for a stream, which is not read for this: its declared type and length stand for it.
    """
    declared = f"{request.headers.get('Content-Type')} {request.headers.get('Content-Length')}".encode()
    scopes = "*" if actor.scopes is None else ",".join(sorted(actor.scopes))
    parts = [
        str(request.method).encode(),
        request.get_full_path().encode(),
        scopes.encode(),
        body or declared,
    ]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def claim(actor: Actor, key: str, print_: str) -> tuple[IdempotencyRecord, Response | None]:
    """Take the key in the present transaction, or return the stored answer of the request that had it.

    A concurrent repeat waits on the unique index until the first request has ended: it then gets its answer,
    or, where the first was refused and so changed nothing, is the first itself.
    """
    record, created = IdempotencyRecord.objects.get_or_create(
        actor=actor.label, key=key, defaults={"fingerprint": print_}
    )
    if created:
        return record, None
    if record.fingerprint != print_:
        raise Invalid(
            f"{HEADER}: {key!r} was used for another request before: use a new key for a new request.",
            code="idempotency_key_reused",
        )
    body = json.loads(unseal(record.body["sealed"])) if record.body is not None else None
    response = Response(body, status=record.status)
    response["Idempotent-Replay"] = "true"
    return record, response


def keep(record: IdempotencyRecord, response: Response) -> None:
    """Store the answer, encrypted: some answers show a token this one time."""
    body = None if response.data is None else {"sealed": seal(JSONRenderer().render(response.data).decode())}
    IdempotencyRecord.objects.filter(pk=record.pk).update(status=response.status_code, body=body)


def forget(before: datetime) -> int:
    """Drop answers kept since before `before`; the housekeeping loop calls it. Returns how many."""
    deleted: tuple[int, Any] = IdempotencyRecord.objects.filter(created_at__lt=before).delete()
    return deleted[0]
