"""Decisions are seen by whoever sees their job; simulations by whoever sees what they are about."""

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.jobs.models import Job
from apps.tenants.policies import OwnedPolicy

from .models import Decision


class DecisionPolicy(OwnedPolicy[Decision]):
    model = Decision
    noun = "decision"
    owner = "job__tenant"


def sees_all(actor: Actor, _obj: object = None) -> bool:
    """Operators and auditors."""
    return actor.operator or actor.auditor


def sees_tenant(actor: Actor, tenant: object) -> bool:
    """Those who see all, and whoever has a role in the tenant (its id)."""
    return sees_all(actor) or tenant in actor.tenant_roles


class SimulationPolicy(Policy[Job]):
    """A simulation changes nothing, so whoever may read may ask; of others' jobs nothing is told.

    Changes of jobs and of a tenant's own quota are for that tenant (the object is its id), those of the fleet and of
    the policy, and replays of what everybody did, for operators and auditors.
    """

    model = Job
    noun = "changes"
    rules = {
        "simulate_jobs": sees_tenant,
        "simulate_quota": sees_tenant,
        "simulate": sees_all,
        "replay": sees_all,
    }
    scopes = dict.fromkeys(("simulate_jobs", "simulate_quota", "simulate", "replay"), "read")

    def sees_all(self, actor: Actor) -> bool:
        """Whether the figures of the whole are for this actor."""
        return actor.has_scope("read") and sees_all(actor)


decisions = DecisionPolicy()
simulations = SimulationPolicy()
