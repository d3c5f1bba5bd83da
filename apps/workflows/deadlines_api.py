"""REST: the deadlines of a run."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation

from . import queries
from .deadline_models import Deadline


class DeadlineAnswer(serializers.ModelSerializer[Deadline]):
    task: Any = serializers.CharField(read_only=True, help_text="Id of the task; empty for the whole run.")
    after: Any = serializers.IntegerField(source="after_seconds", read_only=True, help_text="Seconds.")

    class Meta:
        model = Deadline
        fields = ("id", "task", "kind", "since", "after", "due_at", "missed_at")
        read_only_fields = fields


class Deadlines(ApiView):
    @operation(listing=True, answer=DeadlineAnswer)
    def get(self, request: Request, run_id: int) -> Any:
        """The deadlines and the time limit of a run that are due or were missed."""
        return queries.run_of(self.actor, run_id).deadlines.all()
