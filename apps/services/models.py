"""Services, their immutable revisions, the rollouts of these, and the replicas, each of which is a job."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.jobs.models import Job
from apps.tenants.models import Tenant
from engine.services import Condition

from .states import RolloutState, ServiceState


class Service(models.Model):
    """A long-running service of a tenant. `rollout` is the latest one, and its revision the current one; `stable` the
    latest revision that was rolled out completely. `condition`, `ready` and `detail` are what the loop saw last;
    `due_at` is when it looks again although nothing has happened."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="services", db_index=False)
    # Whose jobs the replicas are: who deployed it last.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    name = models.CharField(max_length=63)
    replicas = models.PositiveIntegerField(default=1)
    # engine.services.Policy, by name.
    policy = models.JSONField()
    state = models.CharField(max_length=10, choices=ServiceState, default=ServiceState.ACTIVE)
    rollout = models.ForeignKey(
        "Rollout", null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    stable = models.ForeignKey("Revision", null=True, on_delete=models.SET_NULL, related_name="+", db_index=False)
    condition = models.CharField(max_length=10, choices=[(one.value, one.value) for one in Condition])
    ready = models.PositiveIntegerField(default=0)
    detail = models.TextField(blank=True, default="")
    due_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="service_once")]
        indexes = [models.Index(fields=["due_at"], name="service_due", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return self.name


class Revision(models.Model):
    """What replicas run: the normalised job spec and its digest, which never change. `failures` and `retry_at` are the
    loop's (engine.services.Backoff): early ends after each other, and when the next start is allowed."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="revisions", db_index=False)
    number = models.PositiveIntegerField()
    spec = models.JSONField()
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    failures = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["service", "number"], name="revision_number_once"),
            models.UniqueConstraint(fields=["service", "digest"], name="revision_content_once"),
        ]

    def __str__(self) -> str:
        return f"revision {self.number} of {self.service_id}"


class Rollout(models.Model):
    """The exchange of a service's replicas for those of one revision; `peak` the most that were ready at once, and
    `progressed_at` when that last grew."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="rollouts")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="rollouts", db_index=False)
    state = models.CharField(max_length=10, choices=RolloutState, default=RolloutState.ROLLING)
    detail = models.TextField(blank=True, default="")
    peak = models.PositiveIntegerField(default=0)
    progressed_at = models.DateTimeField()
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["service"], condition=Q(state="rolling"), name="rollout_one_rolling"),
        ]

    def __str__(self) -> str:
        return f"rollout {self.pk}"


class Replica(models.Model):
    """A job that the service keeps running. `seen` and `token` are the job's state and fencing token that the loop saw
    last, and `running_at` since when the process of that attempt runs; `stopping` that the loop ended it."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="members")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="replicas", db_index=False)
    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="replica")
    seen = models.CharField(max_length=10, default="pending")
    token = models.PositiveIntegerField(default=0)
    running_at = models.DateTimeField(null=True)
    stopping = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["service", "id"], name="replica_live", condition=Q(ended_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"replica {self.pk} (job {self.job_id})"
