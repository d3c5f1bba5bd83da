"""Slot pools, what tasks take of them and of other limits over runs, and what tasks take by their history."""

from django.db import models
from django.db.models import F, Q

from apps.tenants.models import Tenant


class SlotPool(models.Model):
    """So many slots with a name, which tasks of the tenant's workflows take while they are queued or run."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="slot_pools")
    name = models.CharField(max_length=200)
    size = models.PositiveIntegerField()
    description = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="slot_pool_once")]

    def __str__(self) -> str:
        return self.name


class SlotClaim(models.Model):
    """A task that waits for places (not `held`) or has them: from before it is queued until it has ended or, as a
    sensor, waits for its next poke.

    It counts at every limit that its task has: once for its task over all runs (for that of its run, if `scope` is the
    run) and for its workflow, `count` times for its slot pool. How much of a limit is held is the sum over these rows
    and nowhere else. Only `claims.give_out` sets `held`, one transaction of a tenant after the other.
    """

    task = models.OneToOneField("Task", primary_key=True, on_delete=models.CASCADE, related_name="claim")
    run = models.ForeignKey("Run", on_delete=models.CASCADE, related_name="+")
    # Of the run and the task, so that neither has to be read to decide.
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    workflow = models.ForeignKey("Workflow", on_delete=models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=200)
    scope = models.BigIntegerField(default=0)
    pool = models.ForeignKey(SlotPool, null=True, on_delete=models.PROTECT, related_name="claims")
    count = models.PositiveIntegerField(default=1)
    weight = models.FloatField()
    held = models.BooleanField(default=False)
    since = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(
                "tenant", "workflow", "name", "scope", F("weight").desc(), "run", "task",
                name="slot_claim_waiting", condition=Q(held=False),
            ),
            models.Index(fields=["tenant", "workflow", "name"], name="slot_claim_held", condition=Q(held=True)),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"task {self.task_id} {'holds' if self.held else 'waits for'} {self.count}"


class PathHistory(models.Model):
    """What the tasks of a version usually take, where some weigh by the critical path; `at` when that was computed."""

    version = models.OneToOneField("WorkflowVersion", primary_key=True, on_delete=models.CASCADE, related_name="+")
    seconds = models.JSONField(default=dict)
    at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"times of version {self.version_id}"
