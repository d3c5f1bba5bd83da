"""REST: the longest path of a run."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation

from . import queries
from .paths import LongestPath, longest_path

NOTHING = LongestPath((), (), 0.0, 0.0, ended=False)


class PathAnswer(serializers.Serializer[LongestPath]):
    tasks = serializers.ListField(
        child=serializers.CharField(),
        source="names",
        help_text="First to last, those that take time of their own; none where nothing of the run has begun.",
    )
    spent_seconds = serializers.FloatField(source="spent", help_text="Of the run's time, in which one of them ran.")
    total_seconds = serializers.FloatField(source="total", help_text="The run's time so far.")
    share = serializers.IntegerField(help_text="The one in percent of the other.")
    left_seconds = serializers.FloatField(
        source="left",
        allow_null=True,
        help_text="What they still take by the medians of the latest runs; null where the run has ended or none tells.",
    )
    ended = serializers.BooleanField(help_text="Whether it decided when the run ended, or will by the latest runs.")


class PathOfRun(ApiView):
    @operation(answer=PathAnswer)
    def get(self, request: Request, run_id: int) -> Any:
        """The longest path of a run: the chain of tasks in which saving time saves time."""
        run = queries.run_of(self.actor, run_id)
        return longest_path(run, timezone.now()) or NOTHING
