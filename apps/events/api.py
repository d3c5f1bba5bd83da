"""REST: the event log."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation

from . import policies, queries
from .filters import EventFilter
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
    @operation(listing=True, answer=EventAnswer, filters=EventFilter)
    def get(self, request: Request) -> Any:
        """What happened, newest first.

        Ids become visible out of commit order: to follow the log, ask with `settled=true&ordering=id`, which
        leaves out events that an open transaction could still precede.
        """
        return queries.list_events(self.actor)


class EventDetail(ApiView):
    @operation(answer=EventAnswer)
    def get(self, request: Request, event_id: int) -> Any:
        """One event."""
        return policies.events.get(self.actor, pk=event_id)
