"""Sends what is due: each destination by one sender at a time, many destinations beside each other.

An attempt is three steps. `claim` takes the next message of a destination and commits what it will say and that it is
tried; the request goes out with no transaction open; `settle` writes how it went. Whoever is killed between them leaves
the destination busy until its lease ends; then another sender repeats the same message under the same name. So each is
delivered at least once, and the receiver can tell repetitions by their name.

A destination that fails is left alone for a while that doubles, with all of its messages: one that is down costs one
attempt at a time and holds up no other.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import close_old_connections, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import DomainError
from apps.events.record import Move, move_many, record, transition
from apps.workflows.commands.webhooks import signature
from engine.retry import next_delay

from .destinations import Credentials, credentials_of
from .facts import delivery_fact
from .formats import FORMATS, plain
from .messages import payload_of
from .models import Delivery, Destination
from .outgoing import Outcome, post
from .states import DELIVERY_EDGES, DeliveryState

logger = logging.getLogger(__name__)

# 30 s, then twice as long each time, to 2 h: about four hours in all.
RETRY = {"delay": 30.0, "factor": 2.0, "max_delay": 7200.0, "jitter": 0.2}
ATTEMPTS_MAX = 10
AGE_MAX = timedelta(hours=24)
# Longer than the longest attempt: a name that is looked up, a request, or a mail server's answers.
LEASE = timedelta(seconds=90)
WINDOW = timedelta(seconds=60)
DIGEST_MAX = 500
SENDERS = 16
# A sender gives its thread to the next destination after this long.
BUSY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is to be sent now, and to where."""

    delivery: Delivery
    destination: Destination
    payload: Mapping[str, Any]


def due_destinations(now: datetime) -> list[int]:
    """The destinations for which something is due and that nobody is sending to."""
    waiting = Delivery.objects.filter(destination=OuterRef("pk"), state=DeliveryState.PENDING, due_at__lte=now)
    rows = Destination.objects.filter(_free("busy_until", now), _free("resumes_at", now), enabled=True)
    return list(rows.filter(Exists(waiting)).order_by("pk").values_list("pk", flat=True))


def _free(column: str, now: datetime) -> Q:
    return Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__lte": now})


def claim(destination_id: int, now: datetime) -> Message | None:
    """Take the next message of a destination, with what it tells of besides; None when nothing may be sent now."""
    with transaction.atomic():
        rows = Destination.objects.select_for_update(skip_locked=True)
        destination = rows.filter(
            _free("busy_until", now), _free("resumes_at", now), pk=destination_id, enabled=True
        ).first()
        if destination is None:
            return None
        _bury(destination, now)
        due = list(_due(destination, now)[: DIGEST_MAX + 1])
        room = _room(destination, now)
        if not due or room < 1:
            return None
        first = due[0]
        if room == 1 and first.payload is None:
            _digest(first, [item for item in due[1:] if item.payload is None], now)
        destination.paced_until = max(destination.paced_until or now, now) + WINDOW / destination.per_minute
        destination.busy_until = now + LEASE
        destination.save(update_fields=["paced_until", "busy_until"])
        if first.payload is None:
            first.destination = destination
            members = list(first.members.order_by("pk"))
            first.payload = payload_of(first, members)
        first.attempts, first.tried_at = first.attempts + 1, now
        first.save(update_fields=["payload", "attempts", "tried_at"])
        return Message(first, destination, first.payload)


def _due(destination: Destination, now: datetime) -> Any:
    """What waits, the one that was tried least recently first: one that is never taken holds up no other."""
    rows = Delivery.objects.filter(destination=destination, state=DeliveryState.PENDING, due_at__lte=now)
    return rows.select_related("tenant").order_by(F("tried_at").asc(nulls_first=True), "pk")


def _bury(destination: Destination, now: datetime) -> None:
    """Give up what has waited for too long, so that a destination that comes back hears of today."""
    old = Delivery.objects.filter(destination=destination, state=DeliveryState.PENDING, at__lt=now - AGE_MAX)
    for delivery in old.filter(Q(due_at__isnull=True) | Q(due_at__lte=now))[:DIGEST_MAX]:
        last = delivery.last_error or destination.last_error
        error = f"Not delivered within {AGE_MAX.total_seconds() / 3600:g} hours. {last}".strip()[:500]
        _end(delivery, DeliveryState.DEAD, now, error)


def _room(destination: Destination, now: datetime) -> int:
    """How many messages the rate lets through now (GCRA with a burst of a minute: ITU-T I.371, Annex A)."""
    ahead = max(destination.paced_until or now, now) - now
    return int((WINDOW - ahead) / (WINDOW / destination.per_minute) + 1e-6)


def _digest(leader: Delivery, members: list[Delivery], now: datetime) -> None:
    """Let one message tell of the others as well."""
    if not members:
        return
    moves = [Move(item.pk, item.state, DeliveryState.DIGESTED, (leader.pk, now)) for item in members]
    move_many(Delivery, DELIVERY_EDGES, moves, ("digest", "ended_at"))
    record(SYSTEM, delivery_fact("delivery.digested", leader, members=len(members)))


def send(message: Message) -> Outcome:
    """Make one attempt."""
    key = str(message.delivery.key)
    try:
        credentials = credentials_of(message.destination)
    except DomainError as error:
        return Outcome(error.detail)
    channel = message.destination.channel
    if channel == Destination.Channel.EMAIL:
        return _mail(message, key, credentials)
    body = FORMATS[channel](message.payload)
    headers = {}
    if channel == Destination.Channel.WEBHOOK:
        stamp = str(int(time.time()))
        headers = {
            "X-Delivery": key,
            "X-Event": message.delivery.kind,
            "X-Timestamp": stamp,
            "X-Signature": signature(credentials.secret, stamp, body),
        }
    return post(credentials.url, body, headers)


def _mail(message: Message, key: str, credentials: Credentials) -> Outcome:
    if not settings.MAIL_CONFIGURED:
        return Outcome("This portal has no mail server: an operator sets RMPORTAL_SMTP_URL.")
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip(" >") or "localhost"
    mail = EmailMessage(
        subject=" ".join(str(message.payload["subject"]).split())[:200],
        body=plain(message.payload),
        to=list(credentials.to),
        # The same in each attempt: mail programs show a repetition once.
        headers={"Message-ID": f"<{key}@{domain}>", "Auto-Submitted": "auto-generated"},
    )
    try:
        mail.send()
    except OSError as error:  # smtplib's errors are among them.
        return Outcome(f"The mail server did not take it: {type(error).__name__}: {str(error)[:300]}")
    return Outcome()


@transaction.atomic
def settle(message: Message, outcome: Outcome, now: datetime) -> None:
    """Write how an attempt went. Lock order: destination → delivery."""
    destination = Destination.objects.select_for_update().filter(pk=message.delivery.destination_id).first()
    delivery = Delivery.objects.select_for_update().filter(pk=message.delivery.pk).first()
    if destination is None or delivery is None:
        return  # The destination was deleted meanwhile.
    destination.busy_until = None
    if outcome.ok:
        destination.failures, destination.resumes_at, destination.last_error = 0, None, ""
    else:
        destination.failures += 1
        destination.resumes_at = _next_at(destination.failures, destination.pk, outcome, now)
        destination.last_error = outcome.error[:500]
    destination.save(update_fields=["busy_until", "failures", "resumes_at", "last_error"])
    if delivery.state != DeliveryState.PENDING:
        return  # Two senders had it, as a lease had ended; the other one was first.
    if outcome.ok:
        _end(delivery, DeliveryState.SENT, now, "")
    elif outcome.gone or delivery.attempts >= ATTEMPTS_MAX:
        _end(delivery, DeliveryState.DEAD, now, outcome.error)
    else:
        delivery.last_error = outcome.error[:500]
        delivery.due_at = _next_at(delivery.attempts, delivery.pk, outcome, now)
        delivery.save(update_fields=["last_error", "due_at"])


def _next_at(failures: int, seed: int, outcome: Outcome, now: datetime) -> datetime:
    """When to try again after so many failures, not before the receiver has asked for it."""
    return now + timedelta(seconds=max(next_delay(RETRY, failures, seed=seed), outcome.retry_after or 0))


def _end(delivery: Delivery, state: str, now: datetime, error: str) -> None:
    fact = delivery_fact("", delivery, attempts=delivery.attempts)
    transition(SYSTEM, delivery, DELIVERY_EDGES, state, fact, ended_at=now, due_at=None, last_error=error[:500])


def work(destination_id: int) -> int:
    """Send what is due for one destination, as fast as it takes it; returns how many attempts were made."""
    began, attempts = time.monotonic(), 0
    while time.monotonic() - began < BUSY_SECONDS:
        message = claim(destination_id, timezone.now())
        if message is None:
            break
        attempts += 1
        settle(message, send(message), timezone.now())
    return attempts


_pool = ThreadPoolExecutor(max_workers=SENDERS, thread_name_prefix="notify")
_sending: set[int] = set()
_sending_lock = Lock()


def dispatch(now: datetime) -> None:
    """Let senders of this process work for each destination that has something due; does not wait for them."""
    for destination_id in due_destinations(now):
        with _sending_lock:
            if destination_id in _sending:
                continue
            _sending.add(destination_id)
        _pool.submit(_run, destination_id)


def _run(destination_id: int) -> None:
    try:
        work(destination_id)
    except Exception:
        logger.exception("Sending to destination %s failed", destination_id)
    finally:
        with _sending_lock:
            _sending.discard(destination_id)
        close_old_connections()
