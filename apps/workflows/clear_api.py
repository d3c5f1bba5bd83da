"""REST: clearing and marking tasks of a run, notes on it, and the earlier tries of its tasks."""

from dataclasses import asdict
from typing import Any

from django_filters import CharFilter
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, StrictSerializer, Text, operation
from apps.core.filters import FilterSet, IntegerFilter

from . import commands, costs, policies, queries
from .clearing import Choice, ClearPlan
from .models import TaskTry
from .plans import plan_of
from .serializers import RunAnswer
from .states import MARKS

NAMES_MAX = 1000


class TasksField(serializers.ListField):
    """Tasks as people name them."""

    def __init__(self, **options: Any) -> None:
        child = Text(max_length=220, help_text="A task (`train`) or an instance of a mapped one (`train[3]`).")
        super().__init__(child=child, max_length=NAMES_MAX, **options)


class ClearBody(StrictSerializer):
    tasks = TasksField(required=False, default=list, help_text="None: the whole run.")
    upstream = serializers.BooleanField(default=False, help_text="And what they depend on.")
    downstream = serializers.BooleanField(default=True, help_text="And what depends on them.")
    only_failed = serializers.BooleanField(
        default=False, help_text="Only those of them that failed, were cancelled, or never ran because of such a one."
    )
    newest = serializers.BooleanField(
        default=False, help_text="On the newest version of the workflow instead of the version of the run."
    )
    from_cache = serializers.BooleanField(
        default=False, help_text="Let tasks with a cache end with what they had made before instead of anew."
    )
    reason = Text(max_length=500, required=False, allow_blank=True, default="")


class EstimateAnswer(serializers.Serializer[Any]):
    task_hours = serializers.FloatField(help_text="Hours of processes, by what the latest runs took.")
    cpu_hours = serializers.FloatField(help_text="Hours of cores.")
    money = serializers.FloatField(allow_null=True, help_text="By the prices of the nodes they ran on; null: none.")
    unknown = serializers.ListField(
        child=serializers.CharField(), help_text="Tasks without a history: nothing is counted for them."
    )


class ClearedTaskAnswer(serializers.Serializer[Any]):
    name = serializers.CharField()
    index = serializers.IntegerField(help_text="-1, or the instance of a mapped task.")
    label = serializers.CharField(allow_null=True, help_text="What the instance is called, if it has a name.")
    state = serializers.CharField(help_text="Before the clear.")
    job = serializers.IntegerField(allow_null=True)


class ClearAnswer(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    version = serializers.IntegerField(help_text="Number of the version that the run has then.")
    count = serializers.IntegerField(help_text="Tasks and instances that are cleared.")
    in_flight = serializers.IntegerField(help_text="Those of them that are queued or run, and are stopped first.")
    to_come = serializers.IntegerField(
        help_text="Instances of mapped tasks that these never got to, and that run as well now that they go on."
    )
    tasks = ClearedTaskAnswer(many=True, help_text="The first 1,000 of them, in the order of the work.")
    added = serializers.ListField(child=serializers.CharField(), help_text="New in the newest version: they run.")
    removed = serializers.ListField(
        child=serializers.CharField(), help_text="Not in the newest version: kept among the tries only."
    )
    changed = serializers.ListField(
        child=serializers.CharField(), help_text="Defined otherwise in the newest version, cleared or not."
    )
    remapped = serializers.ListField(
        child=serializers.CharField(), help_text="Cleared because they are mapped in only one of both versions."
    )
    estimate = EstimateAnswer()


def clear_answer(plan: ClearPlan) -> dict[str, Any]:
    """A plan with its cost as the API and the page give it."""
    tasks = plan_of(plan.version.pk).tasks
    estimate = costs.of_clear(plan, frozenset(name for name, task in tasks.items() if task.kind == "empty"))
    units = plan.units
    columns = ("name", "index", "label", "state", "job")
    shown = [{column: getattr(row, column) for column in columns} for row in units[:NAMES_MAX]]
    return {
        "run": plan.run.pk,
        "version": plan.version.number,
        "count": len(units),
        "in_flight": plan.in_flight,
        "to_come": sum(plan.to_come.values()),
        "tasks": shown,
        "added": plan.added,
        "removed": plan.removed,
        "changed": plan.changed,
        "remapped": plan.remapped,
        "estimate": asdict(estimate),
    }


class MarkBody(StrictSerializer):
    tasks = TasksField()
    state = serializers.ChoiceField(choices=[str(state) for state in MARKS])
    reason = Text(max_length=500, required=False, allow_blank=True, default="")


class NoteBody(StrictSerializer):
    note = Text(max_length=500, allow_blank=True, help_text="Empty takes the note away.")


class TryAnswer(serializers.ModelSerializer[TaskTry]):
    job: Any = serializers.IntegerField(source="job_id", read_only=True, allow_null=True)
    version: Any = serializers.IntegerField(source="version.number", read_only=True)
    closed_by: Any = serializers.CharField(read_only=True, help_text="Who cleared or marked it.")

    class Meta:
        model = TaskTry
        fields = (
            "id",
            "name",
            "index",
            "label",
            "number",
            "version",
            "state",
            "width",
            "detail",
            "job",
            "queued_at",
            "started_at",
            "ended_at",
            "closed_at",
            "closed_by",
        )
        read_only_fields = fields


class TryFilter(FilterSet):
    name = CharFilter(label="Id of the task in its workflow.")
    index = IntegerFilter(field_name="index", label="Instance of a mapped task.")


class Clear(ApiView):
    @operation(body=ClearBody, answer=ClearAnswer, refusals=(409,))
    def post(self, request: Request, run_id: int) -> Any:
        """Let tasks of a run run again.

        With `dry_run=1` it only says what would be cleared and what that would cost. Tasks in flight are stopped
        first; a run that has ended is queued again.
        """
        data = dict(self.data)
        reason = data.pop("reason")
        choice = Choice(tasks=tuple(data.pop("tasks")), **data)
        return clear_answer(commands.clear(actor=self.actor, run_id=run_id, choice=choice, reason=reason))


class Mark(ApiView):
    @operation(body=MarkBody, answer=RunAnswer, refusals=(409,))
    def post(self, request: Request, run_id: int) -> Any:
        """Count tasks as succeeded, failed or skipped; what waits for them follows."""
        commands.mark(actor=self.actor, run_id=run_id, **self.data)
        return queries.run_of(self.actor, run_id)


class Note(ApiView):
    @operation(body=NoteBody, answer=RunAnswer)
    def post(self, request: Request, run_id: int) -> Any:
        """Write the note of a run."""
        commands.note_run(actor=self.actor, run_id=run_id, note=self.data["note"])
        return queries.run_of(self.actor, run_id)


class Tries(ApiView):
    @operation(listing=True, answer=TryAnswer, filters=TryFilter, ordering="id")
    def get(self, request: Request, run_id: int) -> Any:
        """Earlier tries of the tasks of a run: how they were when somebody cleared or marked them."""
        run = policies.runs.get(self.actor, pk=run_id)
        return run.tries.select_related("version").defer("version__definition")
