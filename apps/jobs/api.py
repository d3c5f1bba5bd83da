"""REST: submitting jobs, looking at them, and what people do with them."""

from typing import Any

from django.db.models import OuterRef, Subquery
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, ReasonBody, operation
from apps.core.errors import Invalid
from apps.tenants import policies as tenant_policies
from apps.tenants.queries import tenant_named
from rmctl.spec import JobSpec

from . import commands, policies
from .consumption import consumption, cost_of
from .filters import JobFilter
from .models import Attempt, Job, Placement


class JobAnswer(serializers.ModelSerializer[Job]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    owner: Any = serializers.CharField(source="owner.username", read_only=True, allow_null=True, default=None)

    class Meta:
        model = Job
        fields: tuple[str, ...] = (
            "id",
            "name",
            "tenant",
            "owner",
            "origin",
            "pool",
            "priority",
            "state",
            "held",
            "reason",
            "detail",
            "token",
            "failures",
            "losses",
            "not_before",
            "exit_code",
            "end_reason",
            "submitted_at",
            "started_at",
            "ended_at",
        )
        read_only_fields: tuple[str, ...] = fields


class JobDetailAnswer(JobAnswer):
    spec: Any = serializers.DictField(help_text="The normalised job spec.")
    result: Any = serializers.JSONField(allow_null=True)
    cost = serializers.SerializerMethodField(
        help_text="Of all attempts until now, in the unit of the lenders' prices: the price of an hour · hours."
    )

    def get_cost(self, job: Job) -> float:
        return cost_of(job.grants.all(), timezone.now())

    class Meta(JobAnswer.Meta):
        fields = (*JobAnswer.Meta.fields, "spec", "result", "cost")
        read_only_fields = fields


class PlacementAnswer(serializers.ModelSerializer[Placement]):
    node: Any = serializers.CharField(source="node.name", read_only=True)
    node_id: Any = serializers.IntegerField(read_only=True)
    enforced: Any = serializers.DictField()
    usage: Any = serializers.DictField()

    class Meta:
        model = Placement
        fields = (
            "id",
            "node",
            "node_id",
            "group",
            "rank",
            "state",
            "exit_code",
            "end_reason",
            "detail",
            "enforced",
            "usage",
            "log_size",
            "started_at",
            "checkpoint_at",
            "ended_at",
        )
        read_only_fields = fields


class Share(serializers.Serializer[Any]):
    flavor = serializers.CharField()
    amounts: Any = serializers.DictField(child=serializers.IntegerField())


class AttemptAnswer(serializers.ModelSerializer[Attempt]):
    flavor = serializers.CharField(
        source="grant.flavor", read_only=True, help_text="Of all members, or those of the groups, in their order."
    )
    shares: Any = serializers.ListField(
        source="grant.shares",
        child=Share(),
        allow_null=True,
        read_only=True,
        help_text="By group: its flavor and what the quota is charged for it; null where all have the same flavor.",
    )
    price_per_hour = serializers.FloatField(
        source="grant.price", read_only=True, help_text="By the terms under which its nodes were lent when it began."
    )
    placements = PlacementAnswer(many=True, read_only=True)
    evicted_for = serializers.IntegerField(
        allow_null=True, read_only=True, help_text="The job for which it was evicted; null where you cannot see that."
    )

    class Meta:
        model = Attempt
        fields = (
            "id",
            "token",
            "state",
            "flavor",
            "shares",
            "price_per_hour",
            "evicted_for",
            "exit_code",
            "end_reason",
            "detail",
            "created_at",
            "started_at",
            "ended_at",
            "placements",
        )
        read_only_fields = fields


class ConsumptionAnswer(serializers.Serializer[Any]):
    since = serializers.DateTimeField(help_text="The beginning of this calendar month (UTC).")
    cpu_hours = serializers.FloatField()
    gpu_hours = serializers.FloatField()
    cost = serializers.FloatField(help_text="In the unit of the lenders' prices.")


class TenantConsumption(ApiView):
    @operation(answer=ConsumptionAnswer)
    def get(self, request: Request, slug: str) -> Any:
        """What a tenant has used this month and what it cost, with what runs now."""
        return consumption(tenant_policies.tenants.get(self.actor, slug=slug), timezone.now())


class Jobs(ApiView):
    @operation(listing=True, answer=JobAnswer, filters=JobFilter)
    def get(self, request: Request) -> Any:
        """Jobs that you can see, newest first."""
        rows = policies.jobs.visible(self.actor).select_related("tenant", "owner")
        return rows.defer("spec", "result", "tried")

    @operation(body=JobSpec, answer=JobDetailAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Submit a job; without a tenant, to the only one that you can submit to."""
        slug = self.data.get("tenant")
        if slug is not None and not isinstance(slug, str):
            raise Invalid.field("tenant", "the slug of a tenant, as text.", "wrong_type")
        return commands.submit(actor=self.actor, tenant=tenant_named(self.actor, slug), data=self.data)


class JobDetail(ApiView):
    @operation(answer=JobDetailAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """One job with its spec and its result."""
        return policies.jobs.get(self.actor, pk=job_id)


class Cancel(ApiView):
    @operation(body=ReasonBody, answer=JobAnswer)
    def post(self, request: Request, job_id: int) -> Any:
        """End a job: at once when it waits, else its processes are stopped first."""
        return commands.cancel(actor=self.actor, job_id=job_id, **self.data)


class Hold(ApiView):
    @operation(body=ReasonBody, answer=JobAnswer)
    def post(self, request: Request, job_id: int) -> Any:
        """Keep a pending job from being placed."""
        return commands.hold(actor=self.actor, job_id=job_id, **self.data)


class Release(ApiView):
    @operation(answer=JobAnswer)
    def post(self, request: Request, job_id: int) -> Any:
        """Let a held job be placed again."""
        return commands.release(actor=self.actor, job_id=job_id)


class Attempts(ApiView):
    @operation(listing=True, answer=AttemptAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """Attempts of a job, newest first, each with its members on their nodes."""
        job = policies.jobs.get(self.actor, pk=job_id)
        evictor = policies.jobs.visible(self.actor).filter(pk=OuterRef("preempted_by")).values("pk")
        rows = Attempt.objects.filter(job=job).annotate(evicted_for=Subquery(evictor))
        return rows.select_related("grant").prefetch_related("placements__node")
