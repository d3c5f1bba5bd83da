"""Webhooks: making and removing them, and taking what is sent to them.

A delivery is signed: `X-Signature: sha256=<hex>`, the HMAC-SHA-256 of `<timestamp>.<body>` under the webhook's secret,
with the Unix time in `X-Timestamp`. One that is older or newer than TOLERANCE is refused, and one with the name of an
earlier one (`X-Delivery`, else the signature) does nothing, so that neither a replay nor a retry triggers twice.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.bulk import insert
from apps.core.crypto import new_token, seal, unseal
from apps.core.errors import Invalid, Unauthenticated
from apps.events.record import Fact, record
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant
from rmctl.spec import BadValue
from rmctl.spec.datasets import check_uri

from .. import policies
from ..dataset_models import Webhook, WebhookDelivery
from ..models import Run, Workflow
from ..timetable import Interval, timetable_of
from .datasets import Update, checked_extra, datasets_named, record_updates
from .runs import NewRun, checked_params, create_runs

TOLERANCE = timedelta(minutes=5)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of a call: the run or the event that it made, or had made before (`repeated`)."""

    run_id: int | None
    event_id: int | None
    repeated: bool


@transaction.atomic
def create_webhook(
    *, actor: Actor, tenant: Tenant, name: str, workflow: str | None = None, dataset: str | None = None
) -> tuple[Webhook, str]:
    """Make a webhook that triggers a workflow (by name) or updates a dataset (by URI), and its secret, shown once."""
    tenant_policies.tenants.require(actor, "push", tenant)
    if not NAME.fullmatch(name):
        raise Invalid.field("name", "letters, digits and . _ -, at most 100 in all.", "bad_id")
    if (workflow is None) == (dataset is None):
        raise Invalid("Give a workflow to trigger or a dataset to update: one of them.", code="one_target")
    if Webhook.objects.filter(tenant=tenant, name=name).exists():
        raise Invalid.field("name", f"tenant {tenant.slug} has a webhook {name} already.", "taken")
    secret = new_token("rmhook")
    made = Webhook(tenant=tenant, name=name, ciphertext=seal(secret))
    if workflow is not None:
        made.workflow = Workflow.objects.filter(tenant=tenant, name=workflow).first()
        if made.workflow is None:
            raise Invalid.field("workflow", f"tenant {tenant.slug} has no workflow {workflow}.", "unknown")
    if dataset is not None:
        try:
            made.dataset = datasets_named(tenant.pk, [check_uri(dataset)])[dataset]
        except BadValue as error:
            raise Invalid.field("dataset", error.message, error.code) from None
    made.save()
    record(actor, Fact("webhook.created", "webhook", made.pk, tenant_id=tenant.pk, facts={"name": name}))
    return made, secret


@transaction.atomic
def delete_webhook(*, actor: Actor, webhook_id: int) -> None:
    """Remove a webhook: what is still sent to it is refused."""
    webhook = policies.webhooks.get(actor, "delete", lock=True, pk=webhook_id)
    fact = Fact("webhook.deleted", "webhook", webhook.pk, tenant_id=webhook.tenant_id, facts={"name": webhook.name})
    record(actor, fact)
    webhook.delete()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The signature of a delivery."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@transaction.atomic
def deliver(*, webhook_id: int, body: bytes, headers: Mapping[str, str]) -> Delivery:
    """Take a call. Raises Unauthenticated for a wrong or old signature or an unknown webhook alike, Invalid for a body
    that its workflow does not accept as parameters."""
    now = timezone.now()
    webhook = Webhook.objects.select_for_update().filter(pk=webhook_id).first()
    given, timestamp = headers.get("X-Signature", ""), headers.get("X-Timestamp", "")
    expected = signature(unseal(webhook.ciphertext), timestamp, body) if webhook is not None else ""
    if webhook is None or not hmac.compare_digest(given.encode(), expected.encode()) or not _is_now(timestamp, now):
        raise Unauthenticated(
            "The signature is wrong, or its time is more than 5 minutes away: X-Signature is sha256=HMAC-SHA-256 of "
            "<X-Timestamp>.<body> under the webhook's secret.",
            code="bad_signature",
        )
    key = headers.get("X-Delivery") or given
    if len(key) > 200:
        raise Invalid.field("X-Delivery", "at most 200 characters.", "too_long")
    # The webhook's row is locked: of two at once, the second finds what the first has left.
    before = WebhookDelivery.objects.filter(Q(key=key) | Q(signature=given), webhook=webhook).first()
    if before is not None:
        return Delivery(before.run_id, before.event_id, repeated=True)
    data = _object(body)
    made = WebhookDelivery(webhook=webhook, key=key, signature=given, at=now)
    actor = SYSTEM
    if webhook.dataset is not None:
        update = Update(webhook.dataset.uri, source=f"webhook {webhook.name}", extra=checked_extra(data))
        made.event = record_updates(actor, webhook.tenant_id, [update], now)[0]
    elif webhook.workflow is not None and webhook.workflow.current is not None:
        workflow, version = webhook.workflow, webhook.workflow.current
        table = timetable_of(workflow)
        interval: Interval | None = table.complete(now) if table is not None else None
        params = checked_params(version, data)
        note = f"webhook {webhook.name}"
        new = NewRun(now, Run.Trigger.WEBHOOK, version.owner_id, params, note, interval)
        made.run = create_runs(actor, workflow, version, [new], now)[0]
    insert([made])
    # Older ones are outside of the time that a signature is good for.
    WebhookDelivery.objects.filter(webhook=webhook, at__lt=now - timedelta(days=7)).delete()
    fact = Fact("webhook.delivered", "webhook", webhook.pk, tenant_id=webhook.tenant_id, facts={"name": webhook.name})
    record(actor, fact)
    return Delivery(made.run_id, made.event_id, repeated=False)


def _is_now(timestamp: str, now: datetime) -> bool:
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        return False
    return abs(now.timestamp() - int(timestamp)) <= TOLERANCE.total_seconds()


def _object(body: bytes) -> dict[str, Any]:
    """The body as JSON data; an empty one is an empty object."""
    if not body:
        return {}
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Invalid("The body must be a JSON object: the parameters of the run, or what goes with the event.")
    return data
