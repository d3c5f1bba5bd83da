"""Who may see and control workflows and runs: members of the tenant; auditors only look."""

from typing import Any

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.tenants.models import Role
from apps.tenants.policies import tenant_visible

from .models import Run, Task, Workflow, WorkflowVersion


def member(actor: Actor, row: Workflow | Run) -> bool:
    """Operators, and members and admins of the tenant that owns it."""
    return actor.operator or actor.tenant_roles.get(row.tenant_id) in (Role.ADMIN, Role.MEMBER)


class WorkflowPolicy(Policy[Workflow]):
    model = Workflow
    noun = "workflow"
    rules = {"trigger": member, "pause": member, "resume": member}

    def _visible(self, actor: Actor, rows: QuerySet[Workflow]) -> QuerySet[Workflow]:
        return rows.filter(tenant_visible(actor, "tenant__"))


class VersionPolicy(Policy[WorkflowVersion]):
    model = WorkflowVersion
    noun = "workflow version"

    def _visible(self, actor: Actor, rows: QuerySet[WorkflowVersion]) -> QuerySet[WorkflowVersion]:
        return rows.filter(tenant_visible(actor, "workflow__tenant__"))


class RunPolicy(Policy[Run]):
    model = Run
    noun = "run"
    rules = {"cancel": member}

    def _visible(self, actor: Actor, rows: QuerySet[Run]) -> QuerySet[Run]:
        return rows.filter(tenant_visible(actor, "tenant__"))


class TaskPolicy(Policy[Task]):
    model = Task
    noun = "task"

    def _visible(self, actor: Actor, rows: QuerySet[Task]) -> QuerySet[Task]:
        return rows.filter(tenant_visible(actor, "run__tenant__"))


def visible(policy: Policy[Any], actor: Actor, pk: int | None) -> bool:
    """Whether the actor sees the object; the check behind a live topic."""
    return pk is not None and policy.visible(actor).filter(pk=pk).exists()


workflows = WorkflowPolicy()
versions = VersionPolicy()
runs = RunPolicy()
tasks = TaskPolicy()
