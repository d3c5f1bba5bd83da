"""Who may see and change the quota tree: operators change it, a tenant sees its leaf and what is above.

Budgets are set by operators, and below them by providers and by admins of tenants.
"""

from typing import ClassVar

from django.db.models import Q, QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy, operator
from apps.tenants.models import Role
from apps.tenants.policies import provider_of, tenant_admin

from .models import Budget, QuotaNode, SetBy


class QuotaPolicy(Policy[QuotaNode]):
    model = QuotaNode
    noun = "quota"
    rules: ClassVar = dict.fromkeys(("create", "update", "set_limits", "delete"), operator)
    scopes: ClassVar = dict.fromkeys(("create", "update", "set_limits", "delete"), "admin")

    def _visible(self, actor: Actor, rows: QuerySet[QuotaNode]) -> QuerySet[QuotaNode]:
        if actor.operator or actor.auditor:
            return rows.all()
        if not actor.tenant_roles:
            return rows.none()
        tree = {pk: (parent, tenant) for pk, parent, tenant in _tree()}
        seen: set[int] = set()
        for pk, (_, tenant) in tree.items():
            step: int | None = pk if tenant in actor.tenant_roles else None
            while step is not None and step not in seen:
                seen.add(step)
                step = tree[step][0]
        return rows.filter(pk__in=seen)


# From the highest right to the lowest.
RANKS = tuple(SetBy)


def right_to_set(actor: Actor, budget: Budget) -> SetBy | None:
    """The highest right by which somebody sets budgets of this one's domain, tenant, workflow or member; None: none.

    Operators set all; providers those of their domain and its tenants; admins those of their tenant, its workflows and
    its members.
    """
    tenant = budget.tenant
    domain = budget.domain_id if tenant is None else tenant.domain_id
    if actor.operator:
        return SetBy.OPERATOR
    if domain is not None and provider_of(actor, domain):
        return SetBy.DOMAIN
    if tenant is not None and tenant_admin(actor, tenant):
        return SetBy.TENANT
    return None


def _may_set(actor: Actor, budget: Budget | None) -> bool:
    """Whether somebody may set this budget, which nobody of a higher right has set; None asks for any at all."""
    if budget is None:
        return actor.operator or Role.PROVIDER in actor.domain_roles.values() or bool(_administered(actor))
    mine = right_to_set(actor, budget)
    return mine is not None and RANKS.index(mine) <= RANKS.index(SetBy(budget.set_by))


def _administered(actor: Actor) -> list[int]:
    return [tenant for tenant, role in actor.tenant_roles.items() if role == Role.ADMIN]


class BudgetPolicy(Policy[Budget]):
    model = Budget
    noun = "budget"
    rules: ClassVar = dict.fromkeys(("create", "update", "delete"), _may_set)
    scopes: ClassVar = dict.fromkeys(("create", "update", "delete"), "admin")

    def _visible(self, actor: Actor, rows: QuerySet[Budget]) -> QuerySet[Budget]:
        if actor.operator or actor.auditor:
            return rows.all()
        # What binds one member alone is for them and for those who set it.
        mine = Q(tenant__in=list(actor.tenant_roles), user=None) | Q(tenant__in=_administered(actor))
        mine |= Q(domain__in=list(actor.domain_roles)) | Q(tenant__domain__in=list(actor.domain_roles))
        mine |= Q(domain__tenants__in=list(actor.tenant_roles))
        if actor.user_id is not None:
            mine |= Q(user=actor.user_id)
        return rows.filter(pk__in=Budget.objects.filter(mine).values("pk"))


def _tree() -> list[tuple[int, int | None, int | None]]:
    return list(QuotaNode.objects.order_by().values_list("pk", "parent_id", "tenant_id"))


quotas = QuotaPolicy()
budgets = BudgetPolicy()
