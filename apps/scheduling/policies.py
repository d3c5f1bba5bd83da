"""Decisions are seen by whoever sees their job."""

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.tenants.policies import tenant_visible

from .models import Decision


class DecisionPolicy(Policy[Decision]):
    model = Decision
    noun = "decision"

    def _visible(self, actor: Actor, rows: QuerySet[Decision]) -> QuerySet[Decision]:
        return rows.filter(tenant_visible(actor, "job__tenant__"))


decisions = DecisionPolicy()
