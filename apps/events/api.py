"""REST: the event log."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation

from . import policies, queries
from .filters import EventFilter
from .following import FollowedPagination
from .models import Event


class EventAnswer(serializers.ModelSerializer[Event]):
    facts: Any = serializers.DictField()

    class Meta:
        model = Event
        fields = (
            "id",
            "at",
            "verb",
            "subject_type",
            "subject_id",
            "tenant_id",
            "domain_id",
            "actor",
            "on_behalf_of",
            "facts",
            "reason",
        )
        read_only_fields = fields


class Events(ApiView):
    @operation(listing=True, answer=EventAnswer, filters=EventFilter, pagination=FollowedPagination)
    def get(self, request: Request) -> Any:
        """What happened, newest first.

        To follow the log, ask with `settled=true&ordering=id`, which leaves out what transactions write that go on
        beside it, and go on where `follow` says: with what is next while there is a `next`, later when there is none.
        So every event comes exactly once. Ids grow within a round of transactions that have ended, and may begin lower
        with the next one.
        """
        return queries.list_events(self.actor)


class EventDetail(ApiView):
    @operation(answer=EventAnswer)
    def get(self, request: Request, event_id: int) -> Any:
        """One event."""
        return policies.events.get(self.actor, pk=event_id)
