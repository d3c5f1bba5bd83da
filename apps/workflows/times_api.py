"""REST: when a workflow's next runs come."""

from itertools import islice
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, StrictSerializer, operation

from . import queries
from .timetable import due


class UpcomingQuery(StrictSerializer):
    count = serializers.IntegerField(min_value=1, max_value=100, default=5, help_text="How many at most.")


class IntervalAnswer(serializers.Serializer[Any]):
    logical_time = serializers.DateTimeField(source="start", help_text="Start of the data interval.")
    run_at = serializers.DateTimeField(source="end", help_text="Its end: when the run is made.")


class UpcomingAnswer(serializers.Serializer[Any]):
    schedule = serializers.CharField()
    timezone = serializers.CharField()
    paused = serializers.BooleanField(help_text="A paused workflow gets none of these until it is resumed.")
    runs = IntervalAnswer(many=True)


class Upcoming(ApiView):
    @operation(query=UpcomingQuery, answer=UpcomingAnswer)
    def get(self, request: Request, workflow_id: int) -> Any:
        """The next runs of a workflow's timetable; none for a continuous one, whose runs follow each other."""
        workflow = queries.workflow_of(self.actor, workflow_id)
        runs = list(islice(due(workflow, timezone.now()), self.query["count"]))
        shown = {"schedule": workflow.schedule, "timezone": workflow.timezone, "paused": workflow.paused, "runs": runs}
        return Response(UpcomingAnswer(shown).data)
