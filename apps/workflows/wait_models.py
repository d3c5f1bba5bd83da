"""What deferred tasks wait for: rows that cost nothing until they are due."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q

from apps.tenants.models import Tenant


class Wait(models.Model):
    """What one task waits for, from its start to its end. `due_at` is when the loop looks at it next: it is set to now
    by whatever ends the wait, a run or a person, and null while a sensor is being poked."""

    class Kind(models.TextChoices):
        TIME = "time"
        POKE = "poke"
        RUN = "run"
        DATASET = "dataset"
        TRIGGER = "trigger"
        APPROVAL = "approval"
        EXTERNAL = "external"

    task = models.OneToOneField("workflows.Task", primary_key=True, on_delete=models.CASCADE, related_name="wait")
    kind = models.CharField(max_length=10, choices=Kind)
    since = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    deadline = models.DateTimeField(null=True)
    # How often it was looked at: the pokes of a sensor.
    looks = models.PositiveIntegerField(default=0)
    # The run that is waited for: the one of a workflow with a logical time, or the one that the task started.
    workflow = models.ForeignKey(
        "workflows.Workflow", null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    logical_time = models.DateTimeField(null=True)
    run = models.ForeignKey("workflows.Run", null=True, on_delete=models.SET_NULL, related_name="+", db_index=False)
    # The datasets that are waited for, and since when updates of them count.
    datasets = ArrayField(models.BigIntegerField(), null=True)
    updated_since = models.DateTimeField(null=True)

    # What another app does for the task (externals.py), by the number that this app has given it.
    reference = models.BigIntegerField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["reference"], name="wait_reference", condition=Q(reference__isnull=False)),
            models.Index(fields=["due_at"], name="wait_due", condition=Q(due_at__isnull=False)),
            models.Index(
                fields=["workflow", "logical_time"], name="wait_for_run", condition=Q(workflow__isnull=False)
            ),
            models.Index(fields=["run"], name="wait_for_own_run", condition=Q(run__isnull=False)),
            GinIndex(fields=["datasets"], name="wait_for_datasets", condition=Q(datasets__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of task {self.task_id}"


class Approval(models.Model):
    """A question to people that a task asks, and who answered it when; it outlives the wait."""

    class State(models.TextChoices):
        OPEN = "open"
        ANSWERED = "answered"
        EXPIRED = "expired"
        CLOSED = "closed"  # Its run was cancelled, or its task is run again.

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    task = models.ForeignKey("workflows.Task", on_delete=models.CASCADE, related_name="approvals")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    subject = models.CharField(max_length=200)
    text = models.TextField(blank=True, default="")
    options = models.JSONField(default=list)
    form = models.JSONField(default=dict)
    users = models.JSONField(default=list)
    roles = models.JSONField(default=list)
    shown = models.JSONField(default=dict)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    option = models.CharField(max_length=200, blank=True, default="")
    values = models.JSONField(default=dict)
    comment = models.CharField(max_length=1000, blank=True, default="")
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    answered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["task"], condition=Q(state="open"), name="approval_open_once"),
        ]
        indexes = [
            models.Index(fields=["tenant", "id"], name="approval_tenant"),
            models.Index(fields=["tenant", "id"], name="approval_open", condition=Q(state="open")),
        ]

    def __str__(self) -> str:
        return self.subject
