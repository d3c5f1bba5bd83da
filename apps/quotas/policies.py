"""Who may see and change the quota tree: operators change it, a tenant sees its leaf and what is above."""

from typing import ClassVar

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy, operator

from .models import QuotaNode


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


def _tree() -> list[tuple[int, int | None, int | None]]:
    return list(QuotaNode.objects.order_by().values_list("pk", "parent_id", "tenant_id"))


quotas = QuotaPolicy()
