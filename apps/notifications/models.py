"""Destinations of a tenant, who hears of what, and every message with how it went."""

import uuid

from django.db import models
from django.db.models import Q

from apps.tenants.models import Tenant
from apps.workflows.models import Workflow

from .states import DeliveryState


class Kind(models.TextChoices):
    """What a message is about."""

    RUN_FAILED = "run.failed"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_DEADLINE = "run.deadline"
    TASK_FAILED = "task.failed"
    TASK_RETRIED = "task.retried"
    APPROVAL_OPENED = "approval.opened"
    BUDGET_WARNED = "budget.warned"
    TEST = "test"


# What can be subscribed to: anything but a test, which is asked for.
SUBJECTS = tuple(kind for kind in Kind if kind != Kind.TEST)


class Destination(models.Model):
    """Where messages go. `ciphertext` is what nobody reads back (the URL, the secret); `shown` is what may be seen of
    it: the host, or the addresses of an e-mail."""

    class Channel(models.TextChoices):
        WEBHOOK = "webhook", "Webhook"
        EMAIL = "email", "E-mail"
        SLACK = "slack", "Slack"
        TEAMS = "teams", "Microsoft Teams"
        MATTERMOST = "mattermost", "Mattermost"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="destinations", db_index=False)
    name = models.CharField(max_length=100)
    channel = models.CharField(max_length=10, choices=Channel)
    ciphertext = models.TextField()
    shown = models.JSONField(default=dict)
    enabled = models.BooleanField(default=True)
    # Messages a minute; what is more is told together in one.
    per_minute = models.PositiveIntegerField(default=10)
    # Generic cell rate algorithm: the time until which the messages sent so far have used the rate up.
    paced_until = models.DateTimeField(null=True)
    # Whoever sends to it has it until then, so that a sender that was killed is followed by another.
    busy_until = models.DateTimeField(null=True)
    # Failures in a row, and when it is tried again after them: one that is down is not asked for each message.
    failures = models.PositiveIntegerField(default=0)
    resumes_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True, default="")
    # It is told of nothing that happened before.
    listens_since = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="destination_once")]

    def __str__(self) -> str:
        return self.name


class Subscription(models.Model):
    """A destination hears of these kinds: in its whole tenant, or of one workflow."""

    destination = models.ForeignKey(Destination, on_delete=models.CASCADE, related_name="subscriptions", db_index=False)
    workflow = models.ForeignKey(Workflow, null=True, on_delete=models.CASCADE, related_name="subscriptions")
    kinds = models.JSONField(default=list)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["destination", "workflow"], nulls_distinct=False, name="subscription_once")
        ]

    def __str__(self) -> str:
        return f"{self.destination_id}: {', '.join(self.kinds)}"


class Delivery(models.Model):
    """One message to one destination. `key` is its name in every attempt; what it says (`payload`) is fixed before the
    first one, so that a repetition is the same message. What was told in another one's digest has that as `digest`."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    destination = models.ForeignKey(Destination, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    # The event that it tells of; null for a test.
    event_id = models.BigIntegerField(null=True)
    kind = models.CharField(max_length=20, choices=Kind)
    key = models.UUIDField(default=uuid.uuid4, unique=True)
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.PENDING)
    subject_type = models.CharField(max_length=40, blank=True, default="")
    subject_id = models.BigIntegerField(null=True)
    facts = models.JSONField(default=dict)
    reason = models.TextField(blank=True, default="")
    at = models.DateTimeField()
    payload = models.JSONField(null=True)
    digest = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="members", db_index=False
    )
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(null=True)
    tried_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["destination", "event_id"], condition=Q(event_id__isnull=False), name="delivery_once"
            )
        ]
        indexes = [
            models.Index(fields=["destination", "due_at"], name="delivery_due", condition=Q(state="pending")),
            models.Index(fields=["destination", "id"], name="delivery_destination"),
            models.Index(fields=["tenant", "id"], name="delivery_tenant"),
            models.Index(fields=["digest"], name="delivery_digest", condition=Q(digest__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.destination_id}"


class Cursor(models.Model):
    """One row: up to where the event log was read. Everything of transactions before `xid` was, and of that one the
    events up to `event_id`; no event that was not has an id up to `floor`. `mark_*` is what the next floor will be,
    once all transactions before `mark_xid` have ended."""

    xid = models.BigIntegerField()
    event_id = models.BigIntegerField(default=0)
    floor = models.BigIntegerField(default=0)
    mark_xid = models.BigIntegerField()
    mark_event_id = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.xid}/{self.event_id}"
