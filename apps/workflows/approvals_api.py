"""REST: the questions that tasks ask people, and their answers."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, StrictSerializer, Text, operation
from apps.core.filters import ChoicesFilter, FilterSet, IntegerFilter, ReferenceFilter
from apps.tenants.models import Tenant

from . import approvals, commands
from .models import Approval


class ApprovalFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    state = ChoicesFilter(choices=Approval.State.choices, label="States.")
    run = IntegerFilter(field_name="task__run_id", label="Id of the run.")


class AskedQuery(StrictSerializer):
    mine = serializers.BooleanField(default=False, help_text="Only what is open and asks you.")


class AnswerBody(StrictSerializer):
    option = Text(max_length=200, help_text="One of the options.")
    values = serializers.DictField(default=dict, help_text="What its form asks for.")
    comment = Text(max_length=1000, default="", allow_blank=True)


class ApprovalAnswer(serializers.ModelSerializer[Approval]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    run: Any = serializers.IntegerField(source="task.run_id", read_only=True)
    workflow: Any = serializers.CharField(source="task.run.workflow.name", read_only=True)
    task: Any = serializers.CharField(read_only=True, help_text="Id of the task in its workflow.")
    options: Any = serializers.ListField(child=serializers.CharField(), read_only=True)
    form: Any = serializers.DictField(read_only=True, help_text="JSON Schema of the values.")
    users: Any = serializers.ListField(child=serializers.CharField(), read_only=True)
    roles: Any = serializers.ListField(child=serializers.CharField(), read_only=True)
    shown: Any = serializers.DictField(read_only=True, help_text="Values for whoever answers.")
    values: Any = serializers.DictField(read_only=True)
    answered_by: Any = serializers.CharField(
        source="answered_by.username", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = Approval
        fields = (
            "id",
            "tenant",
            "run",
            "workflow",
            "task",
            "state",
            "subject",
            "text",
            "options",
            "form",
            "users",
            "roles",
            "shown",
            "asked_at",
            "expires_at",
            "option",
            "values",
            "comment",
            "answered_by",
            "answered_at",
        )
        read_only_fields = fields


class Approvals(ApiView):
    @operation(listing=True, answer=ApprovalAnswer, filters=ApprovalFilter, query=AskedQuery)
    def get(self, request: Request) -> Any:
        """Questions of tasks that you can see, or with `mine` those that wait for you."""
        rows = approvals.list_approvals(self.actor)
        return approvals.asked(self.actor, rows) if self.query["mine"] else rows


class ApprovalDetail(ApiView):
    @operation(answer=ApprovalAnswer)
    def get(self, request: Request, approval_id: int) -> Any:
        """One question with its answer."""
        return approvals.approval_of(self.actor, approval_id)


class Answer(ApiView):
    @operation(body=AnswerBody, answer=ApprovalAnswer)
    def post(self, request: Request, approval_id: int) -> Any:
        """Answer a question that you are asked; its task goes on at once."""
        commands.answer_approval(actor=self.actor, approval_id=approval_id, **self.data)
        return approvals.approval_of(self.actor, approval_id)
