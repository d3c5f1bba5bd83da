"""REST: services, with their replicas, revisions and rollouts, and what people do with them."""

from typing import Any

import django_filters
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, FilterSet, Integer, ReasonBody, StrictSerializer, Text, operation
from apps.core.filters import ChoicesFilter, ReferenceFilter
from apps.tenants.models import Tenant
from apps.tenants.queries import tenant_named
from engine.services import Condition
from rmctl.spec.service import MAX_REPLICAS, ServiceSpec

from . import commands, queries
from .models import Replica, Revision, Rollout, Service
from .states import ServiceState


class ServiceFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    name = django_filters.CharFilter(label="Its name.")
    state = ChoicesFilter(choices=ServiceState.choices, label="States.")
    condition = ChoicesFilter(choices=[(one.value, one.value) for one in Condition], label="Conditions.")


class ScaleBody(StrictSerializer):
    replicas = Integer(min_value=0, max_value=MAX_REPLICAS)
    reason = Text(max_length=500, default="", allow_blank=True)


class RollbackBody(StrictSerializer):
    revision = Integer(min_value=1, help_text="Number of the revision.")
    reason = Text(max_length=500, default="", allow_blank=True)


class ServiceAnswer(serializers.ModelSerializer[Service]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    owner: Any = serializers.CharField(source="owner.username", default=None, read_only=True, allow_null=True)
    condition: Any = serializers.ChoiceField(choices=[one.value for one in Condition], read_only=True)
    ready: Any = serializers.IntegerField(read_only=True, help_text="Replicas that have run for min_ready.")
    revision: Any = serializers.IntegerField(
        source="rollout.revision.number", read_only=True, help_text="The revision that was deployed last."
    )
    stable: Any = serializers.IntegerField(
        source="stable.number",
        default=None,
        allow_null=True,
        read_only=True,
        help_text="The latest that was rolled out completely.",
    )
    rollout: Any = serializers.CharField(source="rollout.state", read_only=True, help_text="State of the latest one.")

    class Meta:
        model = Service
        fields: tuple[str, ...] = (
            "id", "tenant", "owner", "name", "state", "condition", "detail", "replicas", "ready", "revision", "stable",
            "rollout", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class DeployAnswer(ServiceAnswer):
    changed = serializers.BooleanField(read_only=True, help_text="False if it was so already.")

    class Meta(ServiceAnswer.Meta):
        fields = (*ServiceAnswer.Meta.fields, "changed")
        read_only_fields = fields


class ReplicaAnswer(serializers.ModelSerializer[Replica]):
    job: Any = serializers.IntegerField(source="job_id", read_only=True)
    revision: Any = serializers.IntegerField(source="revision.number", read_only=True)
    state: Any = serializers.CharField(source="job.state", read_only=True, help_text="Of its job.")
    detail: Any = serializers.CharField(source="job.detail", read_only=True)
    exit_code: Any = serializers.IntegerField(source="job.exit_code", read_only=True, allow_null=True)
    end_reason: Any = serializers.CharField(source="job.end_reason", read_only=True)
    node: Any = serializers.CharField(source="node.name", default=None, read_only=True, allow_null=True)
    stopping: Any = serializers.BooleanField(read_only=True, help_text="Whether the service has stopped it.")

    class Meta:
        model = Replica
        fields = (
            "id", "job", "revision", "state", "detail", "node", "stopping", "created_at", "running_at", "ended_at",
            "exit_code", "end_reason",
        )  # fmt: skip
        read_only_fields = fields


class RevisionAnswer(serializers.ModelSerializer[Revision]):
    job: Any = serializers.DictField(source="spec", read_only=True, help_text="The normalised job of a replica.")
    failures: Any = serializers.IntegerField(read_only=True, help_text="Early ends after each other.")

    class Meta:
        model = Revision
        fields = ("number", "digest", "created_at", "created_by", "failures", "retry_at", "job")
        read_only_fields = fields


class RolloutAnswer(serializers.ModelSerializer[Rollout]):
    revision: Any = serializers.IntegerField(source="revision.number", read_only=True)

    class Meta:
        model = Rollout
        fields = ("id", "revision", "state", "detail", "created_at", "created_by", "ended_at")
        read_only_fields = fields


class ServiceDetailAnswer(serializers.Serializer[Any]):
    service = ServiceAnswer(read_only=True)
    policy: Any = serializers.DictField(source="service.policy", read_only=True, help_text="rollout and restart.")
    members = ReplicaAnswer(
        source="replicas", many=True, read_only=True, help_text="Those that live, then the latest that have ended."
    )
    revisions = RevisionAnswer(many=True, read_only=True)
    rollouts = RolloutAnswer(many=True, read_only=True)


class Services(ApiView):
    @operation(listing=True, answer=ServiceAnswer, filters=ServiceFilter)
    def get(self, request: Request) -> Any:
        """Services of your tenants."""
        return queries.list_services(self.actor)

    @operation(body=ServiceSpec, answer=DeployAnswer)
    def post(self, request: Request) -> Any:
        """Deploy: make the service of this name, or roll out what is new of it. The same again changes nothing."""
        tenant = tenant_named(self.actor, _slug(self.data.get("tenant")))
        made = commands.deploy(actor=self.actor, tenant=tenant, data=self.data)
        found = queries.service_of(self.actor, made.service.pk)
        found.changed = made.changed  # type: ignore[attr-defined]
        return found


def _slug(given: Any) -> str | None:
    """Anything else than text is refused with the spec."""
    return given if isinstance(given, str) else None


class ServiceDetail(ApiView):
    @operation(answer=ServiceDetailAnswer)
    def get(self, request: Request, service_id: int) -> Any:
        """One service with its replicas, revisions and rollouts."""
        return queries.detail_of(self.actor, service_id)

    @operation(refusals=(409,))
    def delete(self, request: Request, service_id: int) -> None:
        """Remove a service that is stopped, with its revisions; the jobs of its replicas stay."""
        commands.remove(actor=self.actor, service_id=service_id)


class Scale(ApiView):
    @operation(body=ScaleBody, answer=ServiceAnswer, refusals=(409,))
    def post(self, request: Request, service_id: int) -> Any:
        """Let so many replicas run."""
        commands.scale(actor=self.actor, service_id=service_id, **self.data)
        return queries.service_of(self.actor, service_id)


class Rollback(ApiView):
    @operation(body=RollbackBody, answer=ServiceAnswer)
    def post(self, request: Request, service_id: int) -> Any:
        """Roll out a revision that was there before."""
        commands.rollback(actor=self.actor, service_id=service_id, **self.data)
        return queries.service_of(self.actor, service_id)


class Stop(ApiView):
    @operation(body=ReasonBody, answer=ServiceAnswer)
    def post(self, request: Request, service_id: int) -> Any:
        """End all replicas; the service stays, and can be deployed again."""
        commands.stop(actor=self.actor, service_id=service_id, **self.data)
        return queries.service_of(self.actor, service_id)
