"""REST: the quota tree, its limits and its use."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation
from apps.tenants import policies as tenant_policies

from . import commands, policies, queries
from .models import QuotaNode, Resource


class LimitBody(StrictSerializer):
    flavor = Text(max_length=63)
    resource = serializers.ChoiceField(choices=Resource.choices)
    nominal = Integer(min_value=0, max_value=commands.MAX_AMOUNT)
    borrowing_limit = Integer(min_value=0, max_value=commands.MAX_AMOUNT, allow_null=True, default=None)
    lending_limit = Integer(min_value=0, max_value=commands.MAX_AMOUNT, allow_null=True, default=None)


class LimitsBody(StrictSerializer):
    limits = LimitBody(many=True, help_text="All limits of the node; those left out end.")


class QuotaBody(StrictSerializer):
    name = Text(max_length=63)
    parent = Text(
        max_length=63, allow_null=True, default=None, help_text="Name of the cohort above; null: a root."
    )
    tenant = Text(
        max_length=63, allow_null=True, default=None, help_text="Slug of the tenant; null: a cohort."
    )
    weight = serializers.FloatField(default=1.0, min_value=0, max_value=commands.MAX_WEIGHT)


class RulesBody(StrictSerializer):
    strategy = serializers.ChoiceField(choices=commands.POLICIES["strategy"], required=False)
    within_queue = serializers.ChoiceField(choices=commands.POLICIES["within_queue"], required=False)
    reclaim = serializers.ChoiceField(choices=commands.POLICIES["reclaim"], required=False)
    borrow = serializers.ChoiceField(choices=commands.POLICIES["borrow"], required=False)
    borrow_threshold = Integer(
        min_value=commands.PRIORITIES[0], max_value=commands.PRIORITIES[-1], allow_null=True, required=False
    )
    when_can_borrow = serializers.ChoiceField(choices=commands.POLICIES["when_can_borrow"], required=False)
    when_can_preempt = serializers.ChoiceField(choices=commands.POLICIES["when_can_preempt"], required=False)
    preference = serializers.ChoiceField(choices=commands.POLICIES["preference"], required=False)
    minimum_run_seconds = Integer(min_value=0, max_value=commands.MAX_MINIMUM_RUN, required=False)


class QuotaChange(StrictSerializer):
    parent = Text(max_length=63, allow_null=True, required=False)
    weight = serializers.FloatField(required=False, min_value=0, max_value=commands.MAX_WEIGHT)
    highest_priority = Integer(
        min_value=commands.PRIORITIES[0],
        max_value=commands.PRIORITIES[-1],
        allow_null=True,
        required=False,
        help_text="The most that jobs below may name; null: what a node above says, else 1000.",
    )
    rules = RulesBody(required=False, help_text="Rules of a tenant's leaf as a queue; those left out stay.")


class CellAnswer(serializers.Serializer[Any]):
    flavor = serializers.CharField()
    resource = serializers.ChoiceField(choices=Resource.choices)
    nominal = serializers.IntegerField()
    borrowing_limit = serializers.IntegerField(allow_null=True)
    lending_limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField()
    borrowed = serializers.IntegerField()
    potential = serializers.IntegerField()
    available = serializers.IntegerField()
    average = serializers.IntegerField(help_text="Past use, decayed: what shares count besides the present.")


class RulesAnswer(serializers.Serializer[Any]):
    strategy = serializers.CharField()
    within_queue = serializers.CharField()
    reclaim = serializers.CharField()
    borrow = serializers.CharField()
    borrow_threshold = serializers.IntegerField(allow_null=True)
    when_can_borrow = serializers.CharField()
    when_can_preempt = serializers.CharField()
    preference = serializers.CharField()
    minimum_run_seconds = serializers.IntegerField()


class QuotaAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    parent = serializers.CharField(allow_null=True)
    tenant = serializers.CharField(allow_null=True)
    weight = serializers.FloatField()
    depth = serializers.IntegerField()
    cells = CellAnswer(many=True)
    share = serializers.FloatField(allow_null=True, help_text="Fair share in thousandths; null: infinite.")
    rules = RulesAnswer(allow_null=True)
    highest_priority = serializers.IntegerField(
        allow_null=True, help_text="Its own bound of what jobs may name; null: that of the node above holds."
    )


class Quotas(ApiView):
    @operation(listing=True, answer=QuotaAnswer, ordering="id")
    def get(self, request: Request) -> Any:
        """The quota tree as far as you can see it, with limits and use."""
        return queries.rows_of(self.paginate(queries.list_quotas(self.actor)))

    @operation(body=QuotaBody, answer=QuotaAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a cohort, or the leaf of a tenant."""
        data = self.data
        node = commands.create_quota_node(
            actor=self.actor,
            name=data["name"],
            parent=_parent(self, data["parent"]),
            tenant=tenant_policies.tenants.get(self.actor, slug=data["tenant"]) if data["tenant"] else None,
            weight=data["weight"],
        )
        return _row(node)


class QuotaDetail(ApiView):
    @operation(answer=QuotaAnswer)
    def get(self, request: Request, quota_id: int) -> Any:
        """One node of the tree."""
        return _row(policies.quotas.get(self.actor, pk=quota_id))

    @operation(body=QuotaChange, answer=QuotaAnswer)
    def patch(self, request: Request, quota_id: int) -> Any:
        """Change the weight, the highest priority or the rules of a node, or move it under another cohort."""
        node = policies.quotas.get(self.actor, "update", pk=quota_id)
        if "parent" in self.data:
            parent = _parent(self, self.data["parent"])
            node = commands.move_quota_node(actor=self.actor, node_id=quota_id, parent=parent)
        if "weight" in self.data:
            node = commands.set_weight(actor=self.actor, node_id=quota_id, weight=self.data["weight"])
        if "highest_priority" in self.data:
            bound = self.data["highest_priority"]
            node = commands.set_highest_priority(actor=self.actor, node_id=quota_id, highest_priority=bound)
        if "rules" in self.data:
            node = commands.set_rules(actor=self.actor, node_id=quota_id, rules=self.data["rules"])
        return _row(node)

    @operation()
    def delete(self, request: Request, quota_id: int) -> None:
        """Delete a node without children, use or history."""
        commands.delete_quota_node(actor=self.actor, node_id=quota_id)


class QuotaLimits(ApiView):
    @operation(answer=QuotaAnswer)
    def get(self, request: Request, quota_id: int) -> Any:
        """The limits and the use of one node."""
        return _row(policies.quotas.get(self.actor, pk=quota_id))

    @operation(body=LimitsBody, answer=QuotaAnswer)
    def put(self, request: Request, quota_id: int) -> Any:
        """Replace all limits of a node; what is in use stays."""
        return _row(commands.set_limits(actor=self.actor, node_id=quota_id, limits=self.data["limits"]))


def _parent(view: ApiView, name: str | None) -> QuotaNode | None:
    return policies.quotas.get(view.actor, name=name) if name is not None else None


def _row(node: QuotaNode) -> queries.QuotaRow:
    return queries.rows_of([node])[0]
