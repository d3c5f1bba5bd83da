"""Who may see and control jobs: members of the tenant; providers see what runs on their nodes through the fleet."""

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.tenants.models import Role
from apps.tenants.policies import tenant_visible

from .models import Job


def member(actor: Actor, job: Job) -> bool:
    """Operators, and members and admins of the job's tenant."""
    return actor.operator or actor.tenant_roles.get(job.tenant_id) in (Role.ADMIN, Role.MEMBER)


class JobPolicy(Policy[Job]):
    model = Job
    noun = "job"
    rules = {"cancel": member, "hold": member, "release": member}

    def _visible(self, actor: Actor, rows: QuerySet[Job]) -> QuerySet[Job]:
        return rows.filter(tenant_visible(actor, "tenant__"))


jobs = JobPolicy()
