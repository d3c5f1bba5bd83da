"""Making, changing and removing destinations."""

from collections.abc import Sequence

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.crypto import new_token
from apps.core.errors import Conflict, Invalid
from apps.events.record import record
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant

from .. import policies
from ..destinations import NAME, Credentials, checked, checked_rate, credentials_of, sealed, shown
from ..facts import destination_fact
from ..models import Destination
from ..reading import begin

DESTINATIONS_MAX = 100


@transaction.atomic
def create_destination(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    channel: str,
    url: str = "",
    secret: str = "",
    to: Sequence[str] = (),
    per_minute: int = 10,
) -> tuple[Destination, str]:
    """Make a destination; returns it and, of a webhook, the secret that signs what is sent, shown this one time (a new
    one where none is given). Raises Invalid."""
    tenant_policies.tenants.require(actor, "manage_secrets", tenant)
    if not NAME.fullmatch(name):
        raise Invalid.field("name", "letters, digits, _ . and -, at most 100 in all.", "bad_id")
    if channel not in Destination.Channel.values:
        raise Invalid.field("channel", f"one of {', '.join(Destination.Channel.values)}.", "invalid_choice")
    if channel == Destination.Channel.EMAIL and not settings.MAIL_CONFIGURED:
        raise Invalid.field("channel", "this portal has no mail server: an operator sets RMPORTAL_SMTP_URL.", "no_mail")
    mine = Destination.objects.filter(tenant=tenant)
    if mine.filter(name=name).exists():
        raise Invalid.field("name", f"tenant {tenant.slug} has a destination {name} already.", "taken")
    if mine.count() >= DESTINATIONS_MAX:
        raise Conflict(f"Tenant {tenant.slug} has {DESTINATIONS_MAX} destinations, the most there may be.")
    if channel == Destination.Channel.WEBHOOK and not secret:
        secret = new_token("rmnotify")
    credentials = checked(channel, Credentials(url, secret, tuple(to)))
    now = timezone.now()
    if not Destination.objects.filter(enabled=True).exists():
        begin()
    made = Destination.objects.create(
        tenant=tenant,
        name=name,
        channel=channel,
        ciphertext=sealed(credentials),
        shown=shown(channel, credentials),
        per_minute=checked_rate(per_minute),
        listens_since=now,
        created_at=now,
    )
    record(actor, destination_fact("destination.created", made))
    return made, secret


@transaction.atomic
def change_destination(
    *,
    actor: Actor,
    destination_id: int,
    url: str | None = None,
    secret: str | None = None,
    to: Sequence[str] | None = None,
    per_minute: int | None = None,
    enabled: bool | None = None,
) -> Destination:
    """Change what is given; the rest stays. One that is enabled again hears of what happens from then on, and what
    waits for it is tried at once. Raises Invalid."""
    destination = policies.destinations.get(actor, "change", lock=True, pk=destination_id)
    if url is not None or secret is not None or to is not None:
        before = credentials_of(destination)
        credentials = checked(
            destination.channel,
            Credentials(
                before.url if url is None else url,
                secret or before.secret,
                before.to if to is None else tuple(to),
            ),
        )
        destination.ciphertext, destination.shown = sealed(credentials), shown(destination.channel, credentials)
    if per_minute is not None:
        destination.per_minute = checked_rate(per_minute)
    if enabled is not None and enabled != destination.enabled:
        if enabled:
            if not Destination.objects.filter(enabled=True).exists():
                begin()
            destination.listens_since = timezone.now()
        destination.enabled = enabled
    destination.failures, destination.resumes_at, destination.last_error = 0, None, ""
    destination.save()
    given = {"url": url, "secret": secret, "to": to, "per_minute": per_minute, "enabled": enabled}
    changed = sorted(name for name, value in given.items() if value is not None)
    record(actor, destination_fact("destination.changed", destination, changed=changed))
    return destination


@transaction.atomic
def delete_destination(*, actor: Actor, destination_id: int) -> None:
    """Remove a destination with its messages. Raises Conflict while the current version of a workflow names it."""
    destination = policies.destinations.get(actor, "delete", lock=True, pk=destination_id)
    users = _named_by(destination)
    if users:
        named = ", ".join(users)
        raise Conflict(f"Workflow {named} tells {destination.name} by its definition: push it without that first.")
    record(actor, destination_fact("destination.deleted", destination))
    destination.delete()


def _named_by(destination: Destination) -> list[str]:
    """Workflows whose current definition names it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.name FROM workflows_workflow w JOIN workflows_workflowversion v ON v.id = w.current_id "
            "WHERE w.tenant_id = %s AND jsonb_path_exists(v.definition, "
            "'$.**.notify[*].to[*] ? (@ == $name)', jsonb_build_object('name', %s::text)) ORDER BY w.name LIMIT 10",
            [destination.tenant_id, destination.name],
        )
        return [row[0] for row in cursor.fetchall()]
