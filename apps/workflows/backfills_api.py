"""REST: backfills."""

from dataclasses import asdict
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, ReasonBody, StrictSerializer, Text, operation
from apps.core.filters import ChoicesFilter, FilterSet, IntegerFilter, ReferenceFilter
from apps.tenants.models import Tenant

from . import commands, queries
from .backfills import BackfillPlan
from .clear_api import EstimateAnswer
from .commands.backfills import ACTIVE_RUNS_MAX
from .models import Backfill
from .states import BackfillState

SLOTS_SHOWN = 500


class BackfillBody(StrictSerializer):
    workflow = Integer(min_value=1, help_text="Id of the workflow.")
    first = serializers.DateTimeField(help_text="First logical time.")
    last = serializers.DateTimeField(help_text="Last logical time, included.")
    existing = serializers.ChoiceField(
        choices=Backfill.Existing.choices,
        default=Backfill.Existing.NONE,
        help_text="Times whose latest run is like this get another one; without, a time that has a run is left out.",
    )
    order = serializers.ChoiceField(choices=Backfill.Order.choices, default=Backfill.Order.FORWARD)
    max_active_runs = Integer(
        min_value=1, max_value=ACTIVE_RUNS_MAX, default=4, help_text="Its own limit, apart from the workflow's."
    )
    params = serializers.DictField(default=dict, help_text="Parameters that the version declares.")
    version = Integer(min_value=1, required=False, help_text="Number of a version; the current one by default.")
    note = Text(max_length=500, default="", allow_blank=True)
    no_cache = serializers.BooleanField(default=False, help_text="Tasks with a cache take no earlier results.")


class BackfillAnswer(serializers.ModelSerializer[Backfill]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    workflow: Any = serializers.IntegerField(source="workflow_id", read_only=True)
    workflow_name = serializers.CharField(source="workflow.name", read_only=True)
    version: Any = serializers.IntegerField(source="version.number", read_only=True)
    owner: Any = serializers.CharField(source="owner.username", default=None, read_only=True, allow_null=True)
    params: Any = serializers.DictField(read_only=True)
    total: Any = serializers.IntegerField(read_only=True, help_text="Logical times that it covers.")
    position: Any = serializers.IntegerField(read_only=True, help_text="Times looked at so far.")
    made: Any = serializers.IntegerField(read_only=True, help_text="Runs made so far.")
    counts = serializers.DictField(child=serializers.IntegerField(), read_only=True, help_text="Its runs by state.")

    class Meta:
        model = Backfill
        fields: tuple[str, ...] = (
            "id",
            "tenant",
            "workflow",
            "workflow_name",
            "version",
            "state",
            "first",
            "last",
            "order",
            "existing",
            "max_active_runs",
            "no_cache",
            "params",
            "note",
            "owner",
            "total",
            "position",
            "made",
            "counts",
            "created_at",
            "ended_at",
        )
        read_only_fields = fields


class SlotAnswer(serializers.Serializer[Any]):
    logical_time = serializers.DateTimeField()
    action = serializers.ChoiceField(choices=["run", "run again", "exists", "is active"])
    run = serializers.IntegerField(allow_null=True, help_text="The latest run that it has already.")
    state = serializers.CharField(allow_null=True, help_text="State of that run.")


class BackfillPlanAnswer(serializers.Serializer[Any]):
    times = serializers.IntegerField(help_text="Logical times of the range whose data interval has ended.")
    runs = serializers.IntegerField(help_text="Runs to be made.")
    slots = SlotAnswer(many=True, help_text="The first 500 times in the order of the backfill.")
    estimate = EstimateAnswer()


class BackfillCreatedAnswer(BackfillAnswer):
    plan = BackfillPlanAnswer(read_only=True)

    class Meta(BackfillAnswer.Meta):
        fields = (*BackfillAnswer.Meta.fields, "plan")
        read_only_fields = fields


class RerunBody(ReasonBody):
    newest = serializers.BooleanField(default=False, help_text="On the newest version of the workflow.")


class BackfillFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    workflow = IntegerFilter(field_name="workflow_id", label="Id of the workflow.")
    state = ChoicesFilter(choices=BackfillState.choices, label="States.")


def plan_answer(plan: BackfillPlan) -> dict[str, Any]:
    """What a backfill does, as the API and the page give it."""
    shown = [
        {"logical_time": slot.logical_time, "action": slot.action, "run": slot.run, "state": slot.state}
        for slot in plan.slots[:SLOTS_SHOWN]
    ]
    return {"times": len(plan.slots), "runs": plan.makes, "slots": shown, "estimate": asdict(plan.estimate)}


class Backfills(ApiView):
    @operation(listing=True, answer=BackfillAnswer, filters=BackfillFilter)
    def get(self, request: Request) -> Any:
        """Backfills that you can see."""
        return queries.with_counts(self.paginate(queries.list_backfills(self.actor)))

    @operation(body=BackfillBody, answer=BackfillCreatedAnswer, status=201, refusals=(409,))
    def post(self, request: Request) -> Any:
        """Run a workflow for a range of its logical times.

        With `dry_run=1` nothing is made; `plan` says what would run and what that would cost.
        """
        data = dict(self.data)
        made = commands.create_backfill(actor=self.actor, workflow_id=data.pop("workflow"), **data)
        found = queries.backfill_of(self.actor, made.backfill.pk)
        found.plan = plan_answer(made.plan)  # type: ignore[attr-defined]
        return found


class BackfillDetail(ApiView):
    @operation(answer=BackfillAnswer)
    def get(self, request: Request, backfill_id: int) -> Any:
        """One backfill with how many of its runs are in which state."""
        return queries.backfill_of(self.actor, backfill_id)


class PauseBackfill(ApiView):
    @operation(body=ReasonBody, answer=BackfillAnswer, refusals=(409,))
    def post(self, request: Request, backfill_id: int) -> Any:
        """Start no further runs; those that run go on."""
        commands.pause_backfill(actor=self.actor, backfill_id=backfill_id, **self.data)
        return queries.backfill_of(self.actor, backfill_id)


class ResumeBackfill(ApiView):
    @operation(body=ReasonBody, answer=BackfillAnswer, refusals=(409,))
    def post(self, request: Request, backfill_id: int) -> Any:
        """Go on from where it stood."""
        commands.resume_backfill(actor=self.actor, backfill_id=backfill_id, **self.data)
        return queries.backfill_of(self.actor, backfill_id)


class CancelBackfill(ApiView):
    @operation(body=ReasonBody, answer=BackfillAnswer, refusals=(409,))
    def post(self, request: Request, backfill_id: int) -> Any:
        """End it now: no further runs, and those that have not ended are cancelled."""
        commands.cancel_backfill(actor=self.actor, backfill_id=backfill_id, **self.data)
        return queries.backfill_of(self.actor, backfill_id)


class RerunBackfill(ApiView):
    @operation(body=RerunBody, answer=BackfillAnswer, refusals=(409,))
    def post(self, request: Request, backfill_id: int) -> Any:
        """Run what failed of its runs again, with what is behind it."""
        commands.rerun_backfill(actor=self.actor, backfill_id=backfill_id, **self.data)
        return queries.backfill_of(self.actor, backfill_id)
