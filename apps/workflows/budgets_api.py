"""REST: budgets, what is used of them, and when they will be used up."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, StrictSerializer, Text, operation
from apps.jobs.budgets import uses
from apps.quotas import budgets as commands
from apps.quotas.models import Budget, Measure, SetBy
from apps.quotas.policies import budgets as policy
from apps.tenants import policies as tenant_policies
from apps.tenants.queries import person_named, tenant_to_budget

from .queries import workflow_named


class BudgetBody(StrictSerializer):
    domain = Text(max_length=63, allow_null=True, default=None, help_text="Slug; or else a tenant or a user.")
    tenant = Text(max_length=63, allow_null=True, default=None, help_text="Slug of the tenant.")
    workflow = Text(
        max_length=200, allow_null=True, default=None, help_text="Name of a workflow of the tenant: its jobs count."
    )
    user = Text(
        max_length=150, allow_null=True, default=None,
        help_text="Name of a member of the tenant; without a tenant, of a person everywhere.",
    )  # fmt: skip
    measure = serializers.ChoiceField(choices=Measure.choices)
    period = Text(
        max_length=10, allow_blank=True, default="",
        help_text="Of hours and cost: `day`, `week` or `month` of the calendar (UTC), or what has just passed, such as "
        "`24h` or `7d` (at most 31 days).",
    )  # fmt: skip
    amount = serializers.FloatField(
        min_value=0, max_value=commands.MAX_BUDGET, help_text="Jobs, hours, or cost in the unit of the lenders' prices."
    )
    hard = serializers.BooleanField(default=True, help_text="False: warn only (hours and cost).")


class BudgetChange(StrictSerializer):
    amount = serializers.FloatField(required=False, min_value=0, max_value=commands.MAX_BUDGET)
    hard = serializers.BooleanField(required=False)


class BudgetAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    domain = serializers.CharField(allow_null=True)
    tenant = serializers.CharField(allow_null=True)
    workflow = serializers.CharField(allow_null=True, help_text="Of the tenant; null: all its jobs count.")
    user = serializers.CharField(allow_null=True)
    measure = serializers.ChoiceField(choices=Measure.choices)
    period = serializers.CharField()
    amount = serializers.FloatField()
    hard = serializers.BooleanField()
    set_by = serializers.ChoiceField(
        choices=SetBy.choices, help_text="By whose right; who has a lower one cannot change it."
    )
    used = serializers.FloatField(help_text="Of this period so far, or now.")
    per_hour = serializers.FloatField(help_text="What the jobs that run now add in an hour.")
    resets_at = serializers.DateTimeField(allow_null=True, help_text="When the next calendar period begins.")
    free_at = serializers.DateTimeField(
        allow_null=True, help_text="Of one that is used up: when it lets jobs start again if what runs goes on."
    )
    exhausted_at = serializers.DateTimeField(
        allow_null=True, help_text="When it is used up if what runs goes on running; null: not in this period."
    )


class Budgets(ApiView):
    @operation(listing=True, answer=BudgetAnswer)
    def get(self, request: Request) -> Any:
        """The budgets that you can see, with what is used of each."""
        rows = policy.visible(self.actor).select_related("domain", "tenant", "user")
        return _answers(list(self.paginate(rows)))

    @operation(body=BudgetBody, answer=BudgetAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Give a domain, a tenant, one of its workflows or members, or a person in all tenants a budget."""
        data, actor = self.data, self.actor
        tenant = tenant_to_budget(actor, data["tenant"]) if data["tenant"] else None
        budget = commands.create_budget(
            actor=actor,
            measure=data["measure"],
            amount=data["amount"],
            period=data["period"],
            hard=data["hard"],
            domain=tenant_policies.domains.get(actor, slug=data["domain"]) if data["domain"] else None,
            tenant=tenant,
            workflow=workflow_named(actor, tenant, data["workflow"]) if data["workflow"] else "",
            user=person_named(actor, tenant, data["user"]) if data["user"] else None,
        )
        return _answers([budget])[0]


class BudgetDetail(ApiView):
    @operation(answer=BudgetAnswer)
    def get(self, request: Request, budget_id: int) -> Any:
        """One budget with what is used of it."""
        return _answers([policy.get(self.actor, pk=budget_id)])[0]

    @operation(body=BudgetChange, answer=BudgetAnswer)
    def patch(self, request: Request, budget_id: int) -> Any:
        """Raise or lower a budget, or make it hard or soft."""
        budget = commands.change_budget(
            actor=self.actor, budget_id=budget_id, amount=self.data.get("amount"), hard=self.data.get("hard")
        )
        return _answers([budget])[0]

    @operation()
    def delete(self, request: Request, budget_id: int) -> None:
        """Take a budget away."""
        commands.delete_budget(actor=self.actor, budget_id=budget_id)


def _answers(budgets: list[Budget]) -> list[dict[str, Any]]:
    return [
        {
            "id": use.budget.pk,
            "domain": use.budget.domain.slug if use.budget.domain else None,
            "tenant": use.budget.tenant.slug if use.budget.tenant else None,
            "workflow": use.budget.workflow or None,
            "user": use.budget.user.get_username() if use.budget.user else None,
            "measure": use.budget.measure,
            "period": use.budget.period,
            "amount": use.budget.amount,
            "hard": use.budget.hard,
            "set_by": use.budget.set_by,
            "used": use.used,
            "per_hour": use.per_hour,
            "resets_at": use.until,
            "free_at": use.free_at,
            "exhausted_at": use.exhausted_at,
        }
        for use in uses(budgets, timezone.now())
    ]
