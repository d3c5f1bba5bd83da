"""Who may see and control workflows and runs: members of the tenant; auditors only look."""

from typing import Any

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.tenants.policies import OwnedPolicy, tenant_admin, works_for

from .models import (
    Approval,
    Backfill,
    Dataset,
    Run,
    SlotPool,
    StateValue,
    Task,
    Webhook,
    Workflow,
    WorkflowVersion,
)


class WorkflowPolicy(OwnedPolicy[Workflow]):
    model = Workflow
    noun = "workflow"
    rules = dict.fromkeys(("trigger", "pause", "resume", "backfill", "set_state"), works_for)


class VersionPolicy(OwnedPolicy[WorkflowVersion]):
    model = WorkflowVersion
    noun = "workflow version"
    owner = "workflow__tenant"


class RunPolicy(OwnedPolicy[Run]):
    model = Run
    noun = "run"
    rules = dict.fromkeys(("cancel", "clear", "mark", "note", "set_state"), works_for)


class TaskPolicy(OwnedPolicy[Task]):
    model = Task
    noun = "task"
    owner = "run__tenant"


def username(actor: Actor) -> str:
    """The name that a person signs in with; empty for whoever is no person."""
    kind, _, name = actor.label.partition(":")
    return name if kind == "user" and actor.user_id is not None else ""


def is_asked(actor: Actor, approval: Approval) -> bool:
    """Whether the actor is asked, by name or by the role in the tenant; being an operator is no answer."""
    name = username(actor)
    return bool(name) and (name in approval.users or actor.tenant_roles.get(approval.tenant_id) in approval.roles)


class ApprovalPolicy(OwnedPolicy[Approval]):
    model = Approval
    noun = "approval"
    rules = {"answer": is_asked}


class BackfillPolicy(OwnedPolicy[Backfill]):
    model = Backfill
    noun = "backfill"
    rules = dict.fromkeys(("pause", "resume", "cancel", "rerun"), works_for)


class DatasetPolicy(OwnedPolicy[Dataset]):
    model = Dataset
    noun = "dataset"
    rules = {"update": works_for, "delete": works_for}


class StatePolicy(OwnedPolicy[StateValue]):
    model = StateValue
    noun = "state"


class WebhookPolicy(OwnedPolicy[Webhook]):
    model = Webhook
    noun = "webhook"
    rules = {"delete": works_for}


class SlotPoolPolicy(OwnedPolicy[SlotPool]):
    """Admins of the tenant make and change its slot pools; `create` is asked of the tenant."""

    model = SlotPool
    noun = "slot pool"
    rules = {
        "create": tenant_admin,
        **dict.fromkeys(("update", "delete"), lambda actor, pool: tenant_admin(actor, pool.tenant)),
    }


def visible(policy: Policy[Any], actor: Actor, pk: int | None) -> bool:
    """Whether the actor sees the object; the check behind a live topic."""
    return pk is not None and policy.visible(actor).filter(pk=pk).exists()


workflows = WorkflowPolicy()
versions = VersionPolicy()
runs = RunPolicy()
tasks = TaskPolicy()
approvals = ApprovalPolicy()
backfills = BackfillPolicy()
datasets = DatasetPolicy()
state = StatePolicy()
webhooks = WebhookPolicy()
slot_pools = SlotPoolPolicy()
