"""REST: why a job is where it is."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation
from engine.order import SHORTEST, Reach

from . import queries
from .models import Decision


class DecisionAnswer(serializers.ModelSerializer[Decision]):
    tried: Any = serializers.ListField(child=serializers.DictField())
    scores: Any = serializers.DictField()
    nodes: Any = serializers.ListField(child=serializers.JSONField())

    class Meta:
        model = Decision
        fields = ("id", "at", "outcome", "reason", "detail", "flavor", "tried", "scores", "nodes", "reserved_at")
        read_only_fields = fields


class SuggestionAnswer(serializers.Serializer[Any]):
    field: Any = serializers.CharField(help_text="The field of the job spec to change, or `quota`.")
    before = serializers.JSONField()
    after = serializers.JSONField()
    text = serializers.CharField(help_text='The change in words, such as "without region=eu: now".')


class OrderAnswer(serializers.Serializer[Any]):
    priority = serializers.FloatField(help_text="The job's own number, or the highest priority of its quota.")
    ageing = serializers.FloatField(help_text="10 × log2(1 + waited / expected): 10 for each doubling of its slowdown.")
    fair_share = serializers.FloatField(help_text="-10 × the part of its queue's own quota that is in use.")
    total = serializers.FloatField(
        help_text="The sum. The larger one goes first in its queue; with `across_tenants` among those of its priority."
    )
    priority_reach = serializers.ChoiceField(
        choices=[reach.value for reach in Reach],
        help_text="Of its pool: `across_tenants` lets priority go before everything else, also between tenants.",
    )
    above = serializers.IntegerField(help_text="Waiting jobs of other tenants that go first for their priority alone.")
    below = serializers.IntegerField(help_text="Those that it goes before for its priority alone.")
    waited_seconds = serializers.FloatField()
    expected_seconds = serializers.FloatField(help_text="How long it is expected to run, at least 10 s.")
    share = serializers.FloatField(help_text="Present and past use over own quota, dominant resource; 1 is all of it.")


class RunTimeAnswer(serializers.Serializer[Any]):
    p50_seconds = serializers.FloatField(source="p50")
    p90_seconds = serializers.FloatField(source="p90")
    basis = serializers.CharField(help_text='Such as "by 34 runs of this job" or "by the time limit".')


class StartAnswer(serializers.Serializer[Any]):
    p50 = serializers.DateTimeField(allow_null=True, help_text="It starts by then in half of the possible futures.")
    p90 = serializers.DateTimeField(allow_null=True, help_text="It starts by then in nine of ten.")
    basis = serializers.CharField()
    unknown = serializers.CharField(help_text="Why there is no estimate; empty when there is one.")
    reserved_at = serializers.DateTimeField(allow_null=True, help_text="The start that is kept for it now.")


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
    order = OrderAnswer(allow_null=True, help_text="What its place in its queue is made of.")
    run_time = RunTimeAnswer(allow_null=True, help_text="How long it is expected to run.")
    start = StartAnswer(allow_null=True, help_text="When it is expected to start; null when it is not pending.")
    decisions = DecisionAnswer(many=True)


class Why(ApiView):
    @operation(answer=WhyAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """Why a job waits, what was tried for it, and the latest decisions about it."""
        return _answer(queries.why(self.actor, job_id))


def _answer(told: queries.Why) -> dict[str, Any]:
    """As `WhyAnswer` shows it."""
    found = told.outlook
    order = None
    if found.terms is not None and found.run_time is not None:
        order = {
            **{name: value for name, value in found.terms.as_dict().items() if name != "class"},
            "waited_seconds": round(found.waited, 1),
            "expected_seconds": round(max(found.run_time.p50, SHORTEST), 1),
            "share": round(found.share, 4),
            "priority_reach": found.reach.value,
            "above": found.above,
            "below": found.below,
        }
    run_time = found.run_time and {"p50": found.run_time.p50, "p90": found.run_time.p90, "basis": found.run_basis}
    start = {
        "p50": found.p50,
        "p90": found.p90,
        "basis": found.basis,
        "unknown": found.unknown,
        "reserved_at": told.reserved_at,
    }
    names = ("job", "reason", "title", "detail", "tried", "position", "suggestions", "decisions")
    return {
        **{name: getattr(told, name) for name in names},
        "order": order,
        "run_time": run_time,
        "start": start if told.reason else None,
    }
