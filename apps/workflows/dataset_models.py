"""Datasets, the events of their updates, who makes and who waits for them, and webhooks from outside."""

from django.db import models
from django.db.models import Q

from apps.tenants.models import Tenant


class Dataset(models.Model):
    """Something that tasks update and workflows wait for, named by a URI in a tenant; the portal never opens it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="datasets")
    uri = models.CharField(max_length=500)
    created_at = models.DateTimeField(auto_now_add=True)
    # Whether a task has ever waited for it: only then an update looks for those that do.
    awaited = models.BooleanField(default=False, db_default=False)

    class Meta:
        ordering = ["uri"]
        constraints = [models.UniqueConstraint(fields=["tenant", "uri"], name="dataset_once")]

    def __str__(self) -> str:
        return self.uri


class DatasetUse(models.Model):
    """The current version of a workflow makes a dataset (by a task) or waits for it: with a task (`waits`), or with its
    runs (`task` is empty)."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="uses")
    workflow = models.ForeignKey("workflows.Workflow", on_delete=models.CASCADE, related_name="dataset_uses")
    task = models.CharField(max_length=200, blank=True, default="")
    waits = models.BooleanField(default=False, db_default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "workflow", "task", "waits"], name="dataset_use_once")
        ]

    def __str__(self) -> str:
        return f"{self.workflow_id}.{self.task} of {self.dataset_id}"

    @property
    def makes(self) -> bool:
        """Whether it makes the dataset."""
        return bool(self.task) and not self.waits


class DatasetEvent(models.Model):
    """A dataset was updated: by a task that succeeded, or as somebody or a webhook said."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField()
    run = models.ForeignKey("workflows.Run", null=True, on_delete=models.SET_NULL, related_name="dataset_events")
    task = models.CharField(max_length=200, blank=True, default="")
    # Who said so, where it was no task.
    source = models.CharField(max_length=200, blank=True, default="")
    extra = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["dataset", "id"], name="dataset_event_dataset"),
            models.Index(fields=["dataset", "at"], name="dataset_event_time"),
        ]

    def __str__(self) -> str:
        return f"event {self.pk} of {self.dataset_id}"


class DatasetTrigger(models.Model):
    """An event for a workflow that waits for its dataset: pending until the run that it triggers is made.

    Each event has a row for each such workflow, made with the event. A run takes the rows that it sees, in the
    transaction that makes it: an event that commits later is left for the next, so none is lost and none counts twice.
    """

    workflow = models.ForeignKey("workflows.Workflow", on_delete=models.CASCADE, related_name="dataset_triggers")
    event = models.ForeignKey(DatasetEvent, on_delete=models.CASCADE, related_name="triggers")
    run = models.ForeignKey("workflows.Run", null=True, on_delete=models.CASCADE, related_name="triggered_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workflow", "event"], name="dataset_trigger_once")]
        indexes = [models.Index(fields=["workflow", "event"], name="dataset_pending", condition=Q(run__isnull=True))]

    def __str__(self) -> str:
        return f"event {self.event_id} for {self.workflow_id}"


class Webhook(models.Model):
    """An address outside may call, with a signature, to trigger a workflow or to say that a dataset was updated."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="webhooks")
    name = models.CharField(max_length=100)
    workflow = models.ForeignKey("workflows.Workflow", null=True, on_delete=models.CASCADE, related_name="webhooks")
    dataset = models.ForeignKey(Dataset, null=True, on_delete=models.CASCADE, related_name="webhooks")
    ciphertext = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="webhook_once"),
            models.CheckConstraint(
                condition=Q(workflow__isnull=True) ^ Q(dataset__isnull=True), name="webhook_one_target"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WebhookDelivery(models.Model):
    """A call that was taken, by the name that its sender gave it: the same again does nothing."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    key = models.CharField(max_length=200)
    # The name is not signed: whoever repeats a call under another one is known by its signature.
    signature = models.CharField(max_length=80)
    at = models.DateTimeField()
    run = models.ForeignKey("workflows.Run", null=True, on_delete=models.SET_NULL, related_name="+")
    event = models.ForeignKey(DatasetEvent, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["webhook", "key"], name="webhook_delivery_once"),
            models.UniqueConstraint(fields=["webhook", "signature"], name="webhook_signature_once"),
        ]

    def __str__(self) -> str:
        return self.key
