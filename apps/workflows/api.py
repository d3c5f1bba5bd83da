"""REST: workflows, their versions, runs and tasks."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, ReasonBody, operation
from apps.core.errors import Invalid
from apps.tenants.queries import tenant_named

from . import commands, queries
from .filters import RunFilter, TaskFilter, WorkflowFilter
from .serializers import (
    DefinitionBody,
    GraphAnswer,
    PushAnswer,
    RunAnswer,
    RunDetailAnswer,
    TaskAnswer,
    TriggerBody,
    VersionAnswer,
    VersionDetailAnswer,
    WorkflowAnswer,
)


class Workflows(ApiView):
    @operation(listing=True, answer=WorkflowAnswer, filters=WorkflowFilter)
    def get(self, request: Request) -> Any:
        """Workflows that you can see."""
        return queries.list_workflows(self.actor)

    @operation(body=DefinitionBody, answer=PushAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Push a definition: it becomes the current version of the workflow that it names.

        Pushing the same definition again changes nothing and answers with `created` false.
        """
        tenant = tenant_named(self.actor, self.data.get("tenant"))
        follows = self.data["bundle_follows"]
        if follows and not self.dry_run:
            raise Invalid.field("bundle_follows", "Only a dry run may leave the bundle for later.", "not_a_dry_run")
        pushed = commands.push(
            actor=self.actor, tenant=tenant, definition=self.data["definition"], bundle_follows=follows
        )
        return {
            "id": pushed.workflow.pk,
            "tenant": tenant.slug,
            "name": pushed.workflow.name,
            "version": pushed.version.number,
            "digest": pushed.version.digest,
            "created": pushed.created,
            "warnings": pushed.warnings,
        }


class WorkflowDetail(ApiView):
    @operation(answer=WorkflowAnswer)
    def get(self, request: Request, workflow_id: int) -> Any:
        """One workflow."""
        return queries.workflow_of(self.actor, workflow_id)


class Versions(ApiView):
    @operation(listing=True, answer=VersionAnswer)
    def get(self, request: Request, workflow_id: int) -> Any:
        """Versions of a workflow."""
        return queries.list_versions(self.actor, workflow_id)


class VersionDetail(ApiView):
    @operation(answer=VersionDetailAnswer)
    def get(self, request: Request, workflow_id: int, number: int) -> Any:
        """One version with its definition."""
        return queries.version_of(self.actor, workflow_id, number)


class Trigger(ApiView):
    @operation(body=TriggerBody, answer=RunAnswer, status=201)
    def post(self, request: Request, workflow_id: int) -> Any:
        """Queue a run of the current version, or of the one with the number given."""
        return commands.trigger(actor=self.actor, workflow_id=workflow_id, **self.data)


class Pause(ApiView):
    @operation(body=ReasonBody, answer=WorkflowAnswer)
    def post(self, request: Request, workflow_id: int) -> Any:
        """Switch the timetable off; what runs goes on, and triggering still works."""
        commands.pause(actor=self.actor, workflow_id=workflow_id, **self.data)
        return queries.workflow_of(self.actor, workflow_id)


class Resume(ApiView):
    @operation(body=ReasonBody, answer=WorkflowAnswer)
    def post(self, request: Request, workflow_id: int) -> Any:
        """Switch the timetable on again."""
        commands.resume(actor=self.actor, workflow_id=workflow_id, **self.data)
        return queries.workflow_of(self.actor, workflow_id)


class Runs(ApiView):
    @operation(listing=True, answer=RunAnswer, filters=RunFilter)
    def get(self, request: Request) -> Any:
        """Runs that you can see."""
        return queries.list_runs(self.actor)


class RunDetail(ApiView):
    @operation(answer=RunDetailAnswer)
    def get(self, request: Request, run_id: int) -> Any:
        """One run with how many of its tasks are in which state."""
        found = queries.run_detail(self.actor, run_id)
        found.run.counts, found.run.done, found.run.total = found.counts, found.done, found.total  # type: ignore[attr-defined]
        return found.run


class Tasks(ApiView):
    @operation(listing=True, answer=TaskAnswer, filters=TaskFilter, ordering="id")
    def get(self, request: Request, run_id: int) -> Any:
        """Tasks of a run; a mapped one has index -1, its instances count from 0."""
        return queries.list_tasks(self.actor, run_id)


class GraphOfRun(ApiView):
    @operation(answer=GraphAnswer)
    def get(self, request: Request, run_id: int) -> Any:
        """The run as a graph with the state of each task."""
        return Response(queries.run_graph(queries.run_of(self.actor, run_id)))


class Cancel(ApiView):
    @operation(body=ReasonBody, answer=RunAnswer)
    def post(self, request: Request, run_id: int) -> Any:
        """Cancel a run: what has not ended is cancelled, what runs is stopped."""
        commands.cancel_run(actor=self.actor, run_id=run_id, **self.data)
        return queries.run_of(self.actor, run_id)
