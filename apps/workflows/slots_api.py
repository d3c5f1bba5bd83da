"""REST: slot pools, with who holds their slots and who waits."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation
from apps.tenants.queries import tenant_named
from rmctl.spec.limits import MAX_SLOTS

from . import commands, slot_queries
from .commands.slots import DESCRIPTION_MAX
from .filters import OfTenantFilter
from .models import SlotClaim, SlotPool

# Tasks that an answer names of those that hold slots, and of those that wait.
SHOWN = 100


class SlotPoolBody(StrictSerializer):
    tenant = Text(max_length=63, required=False, help_text="Slug; may be left out by members of one tenant.")
    name = Text(max_length=200)
    size = Integer(min_value=0, max_value=MAX_SLOTS, help_text="How many slots; with 0 its tasks stand still.")
    description = Text(max_length=DESCRIPTION_MAX, default="", allow_blank=True)


class SlotPoolChange(StrictSerializer):
    size = Integer(min_value=0, max_value=MAX_SLOTS, required=False)
    description = Text(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)


class SlotPoolAnswer(serializers.ModelSerializer[SlotPool]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    held = serializers.IntegerField(read_only=True, help_text="Slots that tasks hold.")
    holders = serializers.IntegerField(read_only=True, help_text="Tasks that hold some.")
    waiting = serializers.IntegerField(read_only=True, help_text="Tasks that wait for some.")

    class Meta:
        model = SlotPool
        fields: tuple[str, ...] = (
            "id", "tenant", "name", "size", "description", "held", "holders", "waiting", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class SlotClaimAnswer(serializers.ModelSerializer[SlotClaim]):
    task: Any = serializers.IntegerField(source="task_id", read_only=True)
    name: Any = serializers.CharField(source="task.__str__", read_only=True, help_text="With the index of an instance.")
    run: Any = serializers.IntegerField(source="run_id", read_only=True)
    workflow: Any = serializers.IntegerField(source="workflow_id", read_only=True)
    workflow_name = serializers.CharField(source="workflow.name", read_only=True)
    slots = serializers.IntegerField(source="count", read_only=True)

    class Meta:
        model = SlotClaim
        fields = ("task", "name", "run", "workflow", "workflow_name", "slots", "weight", "since")
        read_only_fields = fields


class SlotPoolDetailAnswer(SlotPoolAnswer):
    held_by = serializers.SerializerMethodField()
    in_line = serializers.SerializerMethodField()

    class Meta(SlotPoolAnswer.Meta):
        fields = (*SlotPoolAnswer.Meta.fields, "held_by", "in_line")
        read_only_fields = fields

    @extend_schema_field(SlotClaimAnswer(many=True))
    def get_held_by(self, pool: SlotPool) -> Any:
        """Tasks that hold slots, those that have them longest first; at most 100."""
        return SlotClaimAnswer(slot_queries.claims_of(pool, held=True)[:SHOWN], many=True).data

    @extend_schema_field(SlotClaimAnswer(many=True))
    def get_in_line(self, pool: SlotPool) -> Any:
        """Tasks that wait, in the order in which they get slots; at most 100."""
        return SlotClaimAnswer(slot_queries.claims_of(pool, held=False)[:SHOWN], many=True).data


class SlotPools(ApiView):
    @operation(listing=True, answer=SlotPoolAnswer, filters=OfTenantFilter)
    def get(self, request: Request) -> Any:
        """Slot pools of your tenants."""
        return slot_queries.list_slot_pools(self.actor)

    @operation(body=SlotPoolBody, answer=SlotPoolAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a slot pool: tasks of the tenant's workflows can take slots of it."""
        fields = {name: value for name, value in self.data.items() if name != "tenant"}
        tenant = tenant_named(self.actor, self.data.get("tenant"))
        made = commands.create_slot_pool(actor=self.actor, tenant=tenant, **fields)
        return slot_queries.slot_pool_of(self.actor, made.pk)


class SlotPoolDetail(ApiView):
    @operation(answer=SlotPoolDetailAnswer)
    def get(self, request: Request, slot_pool_id: int) -> Any:
        """One slot pool, with who holds its slots and who waits for some."""
        return slot_queries.slot_pool_of(self.actor, slot_pool_id)

    @operation(body=SlotPoolChange, answer=SlotPoolAnswer)
    def patch(self, request: Request, slot_pool_id: int) -> Any:
        """Give it another size or description. Who holds slots keeps them."""
        commands.change_slot_pool(actor=self.actor, pool_id=slot_pool_id, **self.data)
        return slot_queries.slot_pool_of(self.actor, slot_pool_id)

    @operation()
    def delete(self, request: Request, slot_pool_id: int) -> None:
        """Delete a slot pool that no workflow names any more."""
        commands.delete_slot_pool(actor=self.actor, pool_id=slot_pool_id)
