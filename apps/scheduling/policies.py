"""Decisions are seen by whoever sees their job; simulations by whoever sees what they are about."""

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.jobs.models import Job
from apps.quotas.models import Budget
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


def sees_all_or_belongs(actor: Actor, budget: Budget) -> bool:
    """Those who see all, whoever has a role in the budget's tenant, and the person whose it is: what others' jobs do
    is not told to them anyway."""
    mine = budget.tenant_id is None and budget.user_id is not None and budget.user_id == actor.user_id
    return mine or sees_tenant(actor, budget.tenant_id)


class SimulationPolicy(Policy[Job]):
    """A simulation changes nothing, so whoever may read may ask; of others' jobs nothing is told.

    Changes of jobs and of a tenant's own quota and budgets are for that tenant (the object is its id, or the budget),
    those of the fleet and of the policy, and replays of what everybody did, for operators and auditors.
    """

    model = Job
    noun = "changes"
    rules = {
        "simulate_jobs": sees_tenant,
        "simulate_quota": sees_tenant,
        "simulate_budget": sees_all_or_belongs,
        "simulate": sees_all,
        "replay": sees_all,
    }
    scopes = dict.fromkeys(rules, "read")

    def sees_all(self, actor: Actor) -> bool:
        """Whether the figures of the whole are for this actor."""
        return actor.has_scope("read") and sees_all(actor)


decisions = DecisionPolicy()
simulations = SimulationPolicy()
