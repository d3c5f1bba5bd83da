"""REST: why a job is where it is."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation

from . import queries
from .models import Decision


class DecisionAnswer(serializers.ModelSerializer[Decision]):
    tried: Any = serializers.ListField(child=serializers.DictField())
    scores: Any = serializers.DictField()
    nodes: Any = serializers.ListField(child=serializers.JSONField())

    class Meta:
        model = Decision
        fields = ("id", "at", "outcome", "reason", "detail", "flavor", "tried", "scores", "nodes")
        read_only_fields = fields


class SuggestionAnswer(serializers.Serializer[Any]):
    field: Any = serializers.CharField(help_text="The field of the job spec to change, or `quota`.")
    before = serializers.JSONField()
    after = serializers.JSONField()
    text = serializers.CharField(help_text='The change in words, such as "without region=eu: now".')


class WhyAnswer(serializers.Serializer[Any]):
    job = serializers.IntegerField(source="job.pk")
    state = serializers.CharField(source="job.state")
    reason = serializers.CharField(help_text="From a closed list; empty when the job is not pending.")
    title = serializers.CharField()
    detail = serializers.CharField()
    tried = serializers.ListField(
        child=serializers.DictField(), help_text="Per flavor: what stood in the way."
    )
    position = serializers.IntegerField(allow_null=True, help_text="Place in the queue, from 1.")
    suggestions = SuggestionAnswer(
        many=True, help_text="Single changes after which the job would start now, the cheapest first."
    )
    decisions = DecisionAnswer(many=True)


class Why(ApiView):
    @operation(answer=WhyAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """Why a job waits, what was tried for it, and the latest decisions about it."""
        return queries.why(self.actor, job_id)
