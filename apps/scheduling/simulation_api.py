"""REST: what if, and what would have been."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation
from apps.quotas.budgets import MAX_BUDGET
from apps.quotas.models import Resource
from apps.tenants.models import Tenant

from . import replay, simulation
from .changes import CHANGES_MAX
from .past import TIMES
from .world import POLICIES, RUN_TIMES

DAY = 86_400


class At(StrictSerializer):
    """A change comes so many seconds from now."""

    at_seconds = Integer(min_value=0, max_value=simulation.HORIZON_MAX, default=0)


class AddedJobBody(At):
    tenant = Text(max_length=63, required=False, allow_null=True, help_text="Slug; may be left out by who has one.")
    spec = serializers.DictField(help_text="A job spec, as `POST /api/v1/jobs` takes it.")
    count = Integer(min_value=1, max_value=1000, default=1)
    run_seconds = Integer(
        min_value=1, max_value=366 * DAY, required=False, allow_null=True, help_text="Else as `run_times` says."
    )


class CancelledJobBody(At):
    job = Integer(min_value=1)


class AddedNodesBody(At):
    like = Text(max_length=200, help_text="Name of a node; the new ones are as it is, in the same pools, and empty.")
    count = Integer(min_value=1, max_value=1000, default=1)


class NodeBody(At):
    node = Text(max_length=200)


class LostClusterBody(At):
    cluster = Text(max_length=63)


class QuotaChangeBody(At):
    quota = Text(max_length=63, help_text="Name of a node of the quota tree.")
    flavor = Text(max_length=63)
    resource = serializers.ChoiceField(choices=Resource.choices)
    nominal = Integer(min_value=0, required=False, help_text="Millicores, bytes, or thousandths of a card.")
    change = Integer(required=False, help_text="Added to the nominal amount, where that is not given.")
    borrowing_limit = Integer(min_value=0, required=False, allow_null=True)
    lending_limit = Integer(min_value=0, required=False, allow_null=True)


class BudgetChangeBody(At):
    budget = Integer(min_value=1, help_text="Number of a budget that holds jobs back.")
    amount = serializers.FloatField(
        min_value=0, max_value=MAX_BUDGET, allow_null=True, help_text="From then on; null: as if it were not there."
    )


def _list(body: type[StrictSerializer], text: str) -> Any:
    return body(many=True, default=list, max_length=CHANGES_MAX, help_text=text)


class SimulateBody(StrictSerializer):
    horizon_seconds = Integer(min_value=1, max_value=simulation.HORIZON_MAX, default=DAY)
    run_times = serializers.ChoiceField(
        choices=list(RUN_TIMES), default="p50", help_text="For how long jobs run: a quantile of what such jobs took."
    )
    policy = serializers.ChoiceField(
        choices=list(POLICIES), required=False, allow_null=True, help_text="For all pools; else each as it is now."
    )
    jobs = _list(AddedJobBody, "Jobs that are submitted.")
    cancel = _list(CancelledJobBody, "Jobs that are cancelled.")
    add_nodes = _list(AddedNodesBody, "Nodes that join.")
    remove_nodes = _list(NodeBody, "Nodes that are lost, with what runs on them.")
    cordon_nodes = _list(NodeBody, "Nodes that take no new work.")
    lose_clusters = _list(LostClusterBody, "Clusters all of whose nodes are lost.")
    quotas = _list(QuotaChangeBody, "Limits that change.")
    budgets = _list(BudgetChangeBody, "Budgets that change.")


class OutcomesAnswer(serializers.Serializer[Any]):
    jobs = serializers.IntegerField()
    started = serializers.IntegerField()
    finished = serializers.IntegerField()
    wait_mean_seconds = serializers.FloatField(source="wait_mean")
    wait_p50_seconds = serializers.FloatField(source="wait_p50")
    wait_p95_seconds = serializers.FloatField(source="wait_p95")
    slowdown_mean = serializers.FloatField(help_text="Bounded slowdown: (wait + run) ÷ run, runs of at least 10 s.")
    slowdown_p95 = serializers.FloatField()
    utilisation = serializers.DictField(
        source="used", child=serializers.FloatField(), help_text="Part of cpu, memory and gpu that was in use."
    )
    evictions = serializers.IntegerField()
    lost_seconds = serializers.FloatField(source="lost", help_text="For which evicted and lost runs had been going.")
    fairness = serializers.FloatField(help_text="Jain's index of what queues were served, by weight; 1 is even.")


class CourseAnswer(serializers.Serializer[Any]):
    outcome = serializers.CharField(
        help_text="ended, time limit, running, waiting, cancelled, or not submitted, by the horizon."
    )
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    waits_seconds = serializers.FloatField(allow_null=True)
    nodes = serializers.ListField(child=serializers.CharField())
    evicted_for = serializers.ListField(
        child=serializers.IntegerField(allow_null=True), help_text="Jobs; null for one that you cannot see."
    )
    detail = serializers.CharField(help_text="Why it still waits.")


class SimulatedJobAnswer(serializers.Serializer[Any]):
    job = serializers.IntegerField(source="number", allow_null=True, help_text="Null for one that was added.")
    name = serializers.CharField()
    tenant = serializers.SerializerMethodField()
    changed = serializers.BooleanField()
    before = CourseAnswer(allow_null=True)
    after = CourseAnswer(allow_null=True)

    def get_tenant(self, row: simulation.Simulated) -> str:
        """Its slug; all are read once for an answer."""
        root: Any = self.root
        if not hasattr(root, "_slugs"):
            root._slugs = dict(Tenant.objects.values_list("pk", "slug"))
        return str(root._slugs.get(row.tenant, ""))


class UseAnswer(serializers.Serializer[Any]):
    at = serializers.ListField(child=serializers.DateTimeField(), help_text="Edges; parts are means between two.")
    before = serializers.DictField(child=serializers.ListField(child=serializers.FloatField()))
    after = serializers.DictField(child=serializers.ListField(child=serializers.FloatField()))


class SimulateAnswer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    until = serializers.DateTimeField()
    jobs = SimulatedJobAnswer(many=True, help_text="Those that the changes affect first; at most 1,000.")
    total = serializers.IntegerField()
    affected = serializers.IntegerField()
    before = OutcomesAnswer(allow_null=True, help_text="Of the whole; null unless you may see all of it.")
    after = OutcomesAnswer(allow_null=True)
    use = UseAnswer(allow_null=True, help_text="Part of cpu, memory and gpu in use over the time; null likewise.")


class Simulate(ApiView):
    @operation(body=SimulateBody, answer=SimulateAnswer, idempotency=False, dry_run=False)
    def post(self, request: Request) -> Any:
        """What if: decide on the present with changes, over virtual time. Nothing is changed by it."""
        return simulation.simulate_changes(actor=self.actor, request=self.data, now=timezone.now())


class ReplayBody(StrictSerializer):
    since = serializers.DateTimeField(help_text="Jobs that ended from then on.")
    until = serializers.DateTimeField(help_text="And before then.")
    policies = serializers.ListField(
        child=serializers.ChoiceField(choices=[*POLICIES, "present"]),
        min_length=1,
        max_length=len(POLICIES) + 1,
        default=["present"],
        help_text="`present` is each pool as it is now; the others are for all pools.",
    )
    budgets = serializers.ChoiceField(
        choices=TIMES, default="then", help_text="Of the time, as the log tells them; of today; or none."
    )
    lending = serializers.ChoiceField(
        choices=TIMES, default="then", help_text="Terms of lending: when the first job came, of today, or none."
    )


class ReplayAnswer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    jobs = serializers.IntegerField()
    nodes = serializers.IntegerField()
    left_out = serializers.IntegerField(help_text="Jobs whose pool, tenant or nodes are no longer there.")
    recorded = OutcomesAnswer(help_text="What really happened.")
    policies = serializers.DictField(child=OutcomesAnswer())


class Replay(ApiView):
    @operation(body=ReplayBody, answer=ReplayAnswer, idempotency=False, dry_run=False)
    def post(self, request: Request) -> Any:
        """Run a recorded period again under other policies, on the nodes and quotas of today. Nothing is changed."""
        return replay.replay(actor=self.actor, **self.data)
