"""Reads of the event log."""

from datetime import datetime, timedelta

from django.db import connection
from django.db.models import QuerySet

from apps.core.actors import Actor

from . import policies
from .models import Event

# The most by which an event's time may be out of the order of ids: clocks of several machines, and commits that waited.
SKEW = timedelta(minutes=2)


def first_id_since(moment: datetime) -> int:
    """The id of the first event at or after the moment, by halving: ids grow with time (but for SKEW), so time needs no
    index of its own. One above the last when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE search(low, high) AS ("
            " SELECT (SELECT min(id) FROM events_event), (SELECT max(id) + 1 FROM events_event)"
            " UNION ALL"
            " SELECT CASE WHEN probe.at < %s THEN probe.id + 1 ELSE low END,"
            "  CASE WHEN probe.at < %s THEN high ELSE (low + high) / 2 END"
            " FROM search, LATERAL"
            "  (SELECT id, at FROM events_event WHERE id >= (low + high) / 2 ORDER BY id LIMIT 1) AS probe"
            " WHERE low < high"
            ") SELECT low FROM search WHERE low >= high",
            [moment, moment],
        )
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def list_events(actor: Actor) -> QuerySet[Event]:
    """Events that the actor may see; order and limit them by id."""
    return policies.events.visible(actor)


def events_of(actor: Actor, subject_type: str, subject_id: int) -> QuerySet[Event]:
    """What happened to one thing, newest first."""
    return list_events(actor).filter(subject_type=subject_type, subject_id=subject_id).order_by("-id")
