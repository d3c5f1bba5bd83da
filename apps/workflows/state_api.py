"""REST: the state of workflows and runs, for people and, through their node, for tasks."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation
from apps.core.errors import NotFound
from apps.execution.api import AgentView, PlacementQuery

from . import commands, policies
from .commands.state import scope_of
from .models import StateValue


class StateAnswer(serializers.ModelSerializer[StateValue]):
    version = serializers.IntegerField(help_text="It grows with every write, and none comes again.")
    updated_by: Any = serializers.CharField(read_only=True, help_text="The person, or the task and its run.")

    class Meta:
        model = StateValue
        fields: tuple[str, ...] = ("key", "version", "size", "updated_at", "updated_by")
        read_only_fields = fields


class StateDetailAnswer(StateAnswer):
    value: Any = serializers.JSONField(read_only=True)

    class Meta(StateAnswer.Meta):
        fields = (*StateAnswer.Meta.fields, "value")
        read_only_fields = fields


class StateBody(StrictSerializer):
    value = serializers.JSONField(allow_null=True, help_text="Any JSON, at most 64 KiB.")
    expected_version = Integer(
        min_value=0, required=False, help_text="Write only where the value has this version; 0: where there is none."
    )


class ExpectedQuery(StrictSerializer):
    expected_version = serializers.IntegerField(
        min_value=1, required=False, help_text="Delete only where the value has this version."
    )


class _Keys(ApiView):
    """The keys of one scope."""

    def rows(self, **scope: int) -> Any:
        found = scope_of(self.actor, None, **scope)
        return policies.state.visible(self.actor).filter(workflow=found.workflow_id, run=found.run_id).defer("value")


class WorkflowState(_Keys):
    @operation(listing=True, answer=StateAnswer, ordering="id")
    def get(self, request: Request, workflow_id: int) -> Any:
        """Keys of what a workflow keeps from run to run, without the values."""
        return self.rows(workflow_id=workflow_id)


class RunState(_Keys):
    @operation(listing=True, answer=StateAnswer, ordering="id")
    def get(self, request: Request, run_id: int) -> Any:
        """Keys of what one run keeps for its tasks, without the values."""
        return self.rows(run_id=run_id)


class _Value(ApiView):
    """One value."""

    def found(self, key: str, **scope: int) -> Any:
        chosen = scope_of(self.actor, None, **scope)
        value = chosen.value(key)
        if value is None:
            raise NotFound(f"The state of {chosen.noun} has no key {key}.")
        return value

    def put_value(self, key: str, **scope: int) -> Any:
        expected = self.data.get("expected_version")
        value = self.data["value"]
        return commands.set_state(actor=self.actor, key=key, value=value, expected=expected, **scope)


class WorkflowStateValue(_Value):
    @operation(answer=StateDetailAnswer)
    def get(self, request: Request, workflow_id: int, key: str) -> Any:
        """One value with its version."""
        return self.found(key, workflow_id=workflow_id)

    @operation(body=StateBody, answer=StateDetailAnswer, refusals=(409,))
    def put(self, request: Request, workflow_id: int, key: str) -> Any:
        """Keep a value; with `expected_version` only where nobody has written since it was read."""
        return self.put_value(key, workflow_id=workflow_id)

    @operation(query=ExpectedQuery, status=204, refusals=(409,))
    def delete(self, request: Request, workflow_id: int, key: str) -> Any:
        """Remove a value."""
        expected = self.query.get("expected_version")
        commands.delete_state(actor=self.actor, key=key, expected=expected, workflow_id=workflow_id)


class RunStateValue(_Value):
    @operation(answer=StateDetailAnswer)
    def get(self, request: Request, run_id: int, key: str) -> Any:
        """One value with its version."""
        return self.found(key, run_id=run_id)

    @operation(body=StateBody, answer=StateDetailAnswer, refusals=(409,))
    def put(self, request: Request, run_id: int, key: str) -> Any:
        """Keep a value; with `expected_version` only where nobody has written since it was read."""
        return self.put_value(key, run_id=run_id)

    @operation(query=ExpectedQuery, status=204, refusals=(409,))
    def delete(self, request: Request, run_id: int, key: str) -> Any:
        """Remove a value."""
        expected = self.query.get("expected_version")
        commands.delete_state(actor=self.actor, key=key, expected=expected, run_id=run_id)


class TaskStateBody(StrictSerializer):
    scope = serializers.ChoiceField(choices=["workflow", "run"])
    operation = serializers.ChoiceField(choices=["get", "list", "set", "delete"])
    key = Text(max_length=200, default="", allow_blank=True)
    value = serializers.JSONField(required=False, allow_null=True, default=None)
    expected = Integer(min_value=0, required=False, allow_null=True, default=None)
    request = Text(max_length=64, default="", allow_blank=True, help_text="The same again changes nothing.")


class TaskStateAnswer(serializers.Serializer[Any]):
    found = serializers.BooleanField(required=False)
    value: Any = serializers.JSONField(required=False, allow_null=True)
    version = serializers.IntegerField(required=False)
    written = serializers.BooleanField(help_text="False where the version was not the expected one.")
    keys = serializers.ListField(child=serializers.CharField(), required=False, help_text="Answers `list`.")


class AgentState(AgentView):
    @operation(query=PlacementQuery, body=TaskStateBody, answer=TaskStateAnswer, idempotency=False, refusals=(409,))
    def post(self, request: Request, placement_id: int) -> Any:
        """What a task on this node asks of the state of its own workflow or run."""
        return Response(
            commands.task_state(
                actor=self.agent.actor,
                node_id=self.agent.node.pk,
                placement_id=placement_id,
                token=self.query["token"],
                **self.data,
            )
        )
