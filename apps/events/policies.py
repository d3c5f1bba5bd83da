"""Who may read the log: operators and auditors all of it, others that of their tenants and domains."""

from django.db.models import Q, QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy

from .models import Event


class EventPolicy(Policy[Event]):
    model = Event
    noun = "event"

    def _visible(self, actor: Actor, rows: QuerySet[Event]) -> QuerySet[Event]:
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(
            Q(tenant_id__in=list(actor.tenant_roles))
            | Q(tenant_id__isnull=True, domain_id__in=list(actor.domain_roles))
        )


events = EventPolicy()
