"""Who hears of what."""

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import record
from apps.workflows.models import Workflow

from .. import policies
from ..facts import destination_fact
from ..models import SUBJECTS, Subscription


@transaction.atomic
def subscribe(
    *, actor: Actor, destination_id: int, kinds: Sequence[str], workflow: str | None = None
) -> Subscription:
    """Let a destination hear of these kinds in its whole tenant, or of one workflow (by name); they replace those that
    it heard of there before. Raises Invalid."""
    destination = policies.destinations.get(actor, "subscribe", lock=True, pk=destination_id)
    wrong = next((kind for kind in kinds if kind not in SUBJECTS), None)
    if wrong is not None or not kinds:
        said = f"{wrong} is none of them; " if wrong is not None else ""
        raise Invalid.field("kinds", f"{said}give one or more of {', '.join(SUBJECTS)}.", "invalid_choice")
    found = None
    if workflow is not None:
        found = Workflow.objects.filter(tenant=destination.tenant_id, name=workflow).first()
        if found is None:
            raise Invalid.field("workflow", f"tenant {destination.tenant.slug} has no workflow {workflow}.", "unknown")
        if "budget.warned" in kinds:
            message = "budget.warned is the tenant's: subscribe to it without a workflow."
            raise Invalid.field("kinds", message, "wrong_kind")
    row, _ = Subscription.objects.update_or_create(
        destination=destination,
        workflow=found,
        defaults={"kinds": [str(kind) for kind in SUBJECTS if kind in kinds], "created_at": timezone.now()},
    )
    facts = {"kinds": row.kinds, **({"workflow": workflow} if workflow else {})}
    record(actor, destination_fact("destination.subscribed", destination, **facts))
    return row


@transaction.atomic
def unsubscribe(*, actor: Actor, subscription_id: int) -> None:
    """Take a subscription away; what the definitions of workflows say stays."""
    row = policies.subscriptions.get(actor, "delete", lock=True, pk=subscription_id)
    facts = {"workflow": row.workflow.name} if row.workflow is not None else {}
    record(actor, destination_fact("destination.unsubscribed", row.destination, **facts))
    row.delete()
