"""Reads of the questions that tasks ask people."""

from django.db.models import Q, QuerySet

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.tenants.models import Role

from . import policies
from .models import Approval


def list_approvals(actor: Actor) -> QuerySet[Approval]:
    """Questions with tenant, task, run and workflow, and who answered."""
    return policies.approvals.visible(actor).select_related(
        "tenant", "task__run__workflow", "answered_by"
    )


def approval_of(actor: Actor, approval_id: int) -> Approval:
    """One question as lists show it. Raises NotFound."""
    found = list_approvals(actor).filter(pk=approval_id).first()
    if found is None:
        raise NotFound(f"There is no approval {approval_id} that you can see.")
    return found


def asked(actor: Actor, rows: QuerySet[Approval]) -> QuerySet[Approval]:
    """Those of the rows that are open and ask this actor, by name or by a role."""
    username = policies.username(actor)
    by_role = Q()
    for role in (Role.MEMBER, Role.ADMIN):
        tenants = [tenant for tenant, mine in actor.tenant_roles.items() if mine == role]
        if tenants:
            by_role |= Q(tenant__in=tenants, roles__contains=[str(role)])
    mine = Q(users__contains=[username]) if username else Q(pk__in=[])
    return rows.filter(mine | by_role if by_role else mine, state=Approval.State.OPEN)
