"""What the routes of workflows take and answer."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.api import Integer, StrictSerializer, Text
from rmctl.spec.kinds import NEEDED

from .models import Run, Task, Workflow, WorkflowVersion
from .slot_queries import say_why
from .states import TaskState


class DefinitionBody(StrictSerializer):
    tenant = Text(max_length=63, required=False, help_text="Slug; may be left out by members of one tenant.")
    definition = serializers.DictField(help_text="A workflow definition; its fields are checked one by one.")
    bundle_follows = serializers.BooleanField(
        default=False, help_text="In a dry run: the bundle is uploaded with the push itself, so it need not be there."
    )


class TriggerBody(StrictSerializer):
    params = serializers.DictField(default=dict, help_text="Parameters that the version declares.")
    note = Text(max_length=500, default="", allow_blank=True)
    logical_time = serializers.DateTimeField(required=False, help_text="Now by default.")
    version = Integer(min_value=1, required=False, help_text="Number of a version; the current one by default.")
    no_cache = serializers.BooleanField(default=False, help_text="Tasks with a cache take no earlier results.")


class LatestRunAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    state = serializers.CharField()
    created_at = serializers.DateTimeField()


class WorkflowAnswer(serializers.ModelSerializer[Workflow]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    version = serializers.SerializerMethodField(help_text="Number of the current version.")
    latest_run = serializers.SerializerMethodField()

    class Meta:
        model = Workflow
        fields = (
            "id",
            "tenant",
            "name",
            "description",
            "version",
            "paused",
            "schedule",
            "timezone",
            "catchup",
            "next_run_at",
            "next_logical_time",
            "latest_run",
            "created_at",
        )
        read_only_fields = fields

    def get_version(self, workflow: Workflow) -> int | None:
        """Number of the current version."""
        return workflow.current.number if workflow.current is not None else None

    @extend_schema_field(LatestRunAnswer(allow_null=True))
    def get_latest_run(self, workflow: Workflow) -> LatestRunAnswer | None:
        """The newest run, or null."""
        pk = getattr(workflow, "latest_run_id", None)
        if pk is None:
            return None
        found = {"id": pk, "state": workflow.latest_run_state, "created_at": workflow.latest_run_at}  # type: ignore[attr-defined]
        return LatestRunAnswer(found).data  # type: ignore[return-value]


class WarningAnswer(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="Where in the definition, such as `tasks[0].trigger_run`.")
    message = serializers.CharField()
    code = serializers.CharField()


class PushAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text="Of the workflow.")
    tenant = serializers.CharField()
    name = serializers.CharField()
    version = serializers.IntegerField(help_text="Number of the version.")
    digest = serializers.CharField(help_text="SHA-256 of the canonical definition.")
    created = serializers.BooleanField(help_text="False when this definition was known already.")
    warnings = WarningAnswer(
        many=True, help_text="What the author may not expect, such as at changes of the clock, or what is missing yet."
    )


class VersionAnswer(serializers.ModelSerializer[WorkflowVersion]):
    owner: Any = serializers.CharField(source="owner.username", default=None, read_only=True, allow_null=True)

    class Meta:
        model = WorkflowVersion
        fields: tuple[str, ...] = ("id", "number", "digest", "owner", "created_at")
        read_only_fields = fields


class VersionDetailAnswer(VersionAnswer):
    definition: Any = serializers.DictField(read_only=True)

    class Meta(VersionAnswer.Meta):
        fields = (*VersionAnswer.Meta.fields, "definition")
        read_only_fields = fields


class RunAnswer(serializers.ModelSerializer[Run]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    workflow: Any = serializers.IntegerField(source="workflow_id", read_only=True)
    workflow_name = serializers.CharField(source="workflow.name", read_only=True)
    version: Any = serializers.IntegerField(source="version.number", read_only=True)
    owner: Any = serializers.CharField(source="owner.username", default=None, read_only=True, allow_null=True)
    params: Any = serializers.DictField(read_only=True)
    note_by: Any = serializers.CharField(source="note_by.username", default=None, read_only=True, allow_null=True)
    backfill: Any = serializers.IntegerField(source="backfill_id", read_only=True, allow_null=True)

    class Meta:
        model = Run
        fields: tuple[str, ...] = (
            "id",
            "tenant",
            "workflow",
            "workflow_name",
            "version",
            "state",
            "trigger",
            "logical_time",
            "data_interval_start",
            "data_interval_end",
            "params",
            "note",
            "note_by",
            "note_at",
            "backfill",
            "no_cache",
            "owner",
            "created_at",
            "started_at",
            "ended_at",
        )
        read_only_fields = fields


class RunDetailAnswer(RunAnswer):
    counts = serializers.DictField(
        child=serializers.IntegerField(), help_text="Tasks (instances of mapped ones) by state."
    )
    done = serializers.IntegerField()
    total = serializers.IntegerField()

    class Meta(RunAnswer.Meta):
        fields = (*RunAnswer.Meta.fields, "counts", "done", "total")
        read_only_fields = fields


class TaskList(serializers.ListSerializer[Any]):
    """Tasks of one page; those that wait for places say where they stand in line."""

    def to_representation(self, data: Any) -> list[Any]:
        """The rows, with what is known of the places of all of them at once."""
        return super().to_representation(say_why(list(data)))


class TaskAnswer(serializers.ModelSerializer[Task]):
    label: Any = serializers.CharField(
        read_only=True, allow_null=True, help_text="What an instance is called, where its task says how."
    )
    job: Any = serializers.IntegerField(source="job_id", read_only=True, allow_null=True)
    job_state = serializers.CharField(source="job.state", default=None, read_only=True, allow_null=True)
    exit_code = serializers.IntegerField(source="job.exit_code", default=None, read_only=True, allow_null=True)
    due_at = serializers.DateTimeField(
        source="wait.due_at",
        default=None,
        read_only=True,
        allow_null=True,
        help_text="When a deferred task is looked at next.",
    )
    deadline = serializers.DateTimeField(
        source="wait.deadline",
        default=None,
        read_only=True,
        allow_null=True,
        help_text="When its waiting is over.",
    )

    class Meta:
        model = Task
        list_serializer_class = TaskList
        fields = (
            "id",
            "name",
            "index",
            "label",
            "width",
            "state",
            "detail",
            "job",
            "job_state",
            "exit_code",
            "due_at",
            "deadline",
            "queued_at",
            "started_at",
            "ended_at",
        )
        read_only_fields = fields


class GraphNodeAnswer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Id of the task in its workflow.")
    task = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=sorted(NEEDED))
    role = serializers.ChoiceField(choices=["", "setup", "teardown"])
    decides = serializers.CharField(help_text="`branch` or `short_circuit` for a task that decides the way.")
    group = serializers.CharField(allow_null=True, help_text="The group that the task is in.")
    rule = serializers.CharField()
    mapped = serializers.BooleanField()
    state = serializers.ChoiceField(choices=TaskState.choices)
    job = serializers.IntegerField(allow_null=True)
    detail = serializers.CharField()
    width = serializers.IntegerField(allow_null=True, help_text="Instances, once a mapped task is expanded.")
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="Instances by state.")
    started_at = serializers.CharField(allow_null=True)
    ended_at = serializers.CharField(allow_null=True)


class EdgeAnswer(serializers.Serializer[Any]):
    source: Any = serializers.CharField()
    target = serializers.CharField()


class GroupAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    parent = serializers.CharField(allow_null=True)
    description = serializers.CharField(allow_blank=True)


class GraphAnswer(serializers.Serializer[Any]):
    nodes = GraphNodeAnswer(many=True)
    edges = EdgeAnswer(many=True)
    levels = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    groups = GroupAnswer(many=True)
