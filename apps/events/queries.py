"""Reads of the event log."""

from django.db.models import QuerySet

from apps.core.actors import Actor

from . import policies
from .models import Event


def list_events(actor: Actor) -> QuerySet[Event]:
    """Events that the actor may see; order and limit them by id."""
    return policies.events.visible(actor)


def events_of(actor: Actor, subject_type: str, subject_id: int) -> QuerySet[Event]:
    """What happened to one thing, newest first."""
    return list_events(actor).filter(subject_type=subject_type, subject_id=subject_id).order_by("-id")


def settled_after(actor: Actor, event_id: int) -> QuerySet[Event]:
    """Events after `event_id` that are below the horizon, oldest first: a follower that remembers the last
    id it was given misses none."""
    return policies.events.visible(actor, Event.objects.settled()).filter(pk__gt=event_id).order_by("id")
