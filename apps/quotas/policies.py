"""Who may see and change the quota tree: operators change it, a tenant sees its leaf and what is above."""

from typing import ClassVar

from django.db.models import Q, QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy, operator

from .models import Budget, QuotaNode


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


class BudgetPolicy(Policy[Budget]):
    model = Budget
    noun = "budget"
    rules: ClassVar = dict.fromkeys(("create", "update", "delete"), operator)
    scopes: ClassVar = dict.fromkeys(("create", "update", "delete"), "admin")

    def _visible(self, actor: Actor, rows: QuerySet[Budget]) -> QuerySet[Budget]:
        if actor.operator or actor.auditor:
            return rows.all()
        mine = Q(tenant__in=list(actor.tenant_roles)) | Q(domain__in=list(actor.domain_roles))
        mine |= Q(domain__tenants__in=list(actor.tenant_roles))
        if actor.user_id is not None:
            mine |= Q(user=actor.user_id)
        return rows.filter(pk__in=Budget.objects.filter(mine).values("pk"))


def _tree() -> list[tuple[int, int | None, int | None]]:
    return list(QuotaNode.objects.order_by().values_list("pk", "parent_id", "tenant_id"))


quotas = QuotaPolicy()
budgets = BudgetPolicy()
