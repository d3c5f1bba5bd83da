"""What attempts leave behind: log chunks and artifacts; and the bundles they start from."""

from django.conf import settings
from django.db import models

from apps.jobs.models import Job, Placement
from apps.tenants.models import Tenant


class LogChunk(models.Model):
    """A piece of a placement's log, kept as one object in the `logs` storage; offsets leave no gap."""

    # Its unique constraint on (placement, offset) is the index.
    placement = models.ForeignKey(Placement, on_delete=models.CASCADE, related_name="log_chunks", db_index=False)
    offset = models.BigIntegerField()
    length = models.PositiveIntegerField()
    path = models.CharField(max_length=200)

    class Meta:
        ordering = ["placement_id", "offset"]
        constraints = [models.UniqueConstraint(fields=["placement", "offset"], name="log_offset_once")]

    def __str__(self) -> str:
        return f"{self.placement_id}@{self.offset}+{self.length}"


class Artifact(models.Model):
    """A file that a task kept (`$RM_ARTIFACTS`), in the `artifacts` storage."""

    placement = models.ForeignKey(Placement, on_delete=models.CASCADE, related_name="artifacts", db_index=False)
    name = models.CharField(max_length=500)
    path = models.CharField(max_length=600)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["placement", "name"], name="artifact_once")]

    def __str__(self) -> str:
        return self.name


class Checkpoint(models.Model):
    """What one member (group, rank) of a job had saved at a time (`$RM_CHECKPOINT_DIR`), as a tar.gz in the
    `checkpoints` storage; a later attempt goes on from the newest of those before it."""

    # Its index below serves it.
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="checkpoints", db_index=False)
    group = models.PositiveSmallIntegerField(default=0)
    rank = models.PositiveIntegerField(default=0)
    # Of the attempt that saved it.
    token = models.PositiveIntegerField()
    at = models.DateTimeField()
    path = models.CharField(max_length=200)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["job", "group", "rank", "-token", "-at"], name="checkpoint_newest")]

    def __str__(self) -> str:
        return f"checkpoint {self.pk} of job {self.job_id}"


class Bundle(models.Model):
    """A tenant's uploaded tar.gz with code and small data, found by content."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="bundles")
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "sha256"], name="bundle_once")]

    def __str__(self) -> str:
        return self.sha256[:12]
