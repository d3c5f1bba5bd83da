"""What tasks with a cache did with it: the record of each start, which is the entry itself once the task succeeded."""

from django.db import models
from django.db.models import Q

from apps.jobs.models import Job
from apps.tenants.models import Tenant


class CacheUse(models.Model):
    """One start of a task, or of an instance, that has a cache.

    `parts` are short digests of what the key is made of, by a name for people. The start that ran is an entry, to be
    found by `key` until `expires_at`, from the moment at which its job (`job`) succeeded (`stored_at`); one that was
    spared has the entry that it came from (`source`). No constraint of the database watches tenant and workflow: the
    run, which the writer holds, has them already, and rows of others are not to be locked for it.
    """

    class Outcome(models.TextChoices):
        HIT = "hit"
        MISS = "miss"
        BYPASS = "bypass"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False)
    workflow = models.ForeignKey(
        "Workflow", on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    # The index `cache_use_task` serves it.
    run = models.ForeignKey("Run", on_delete=models.CASCADE, related_name="cache_uses", db_index=False)
    name = models.CharField(max_length=200)
    index = models.IntegerField(default=-1)
    outcome = models.CharField(max_length=6, choices=Outcome)
    key = models.CharField(max_length=64)
    parts = models.JSONField()
    ttl = models.PositiveIntegerField()
    at = models.DateTimeField()
    source = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="+")
    job = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="+")
    stored_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["run", "name", "index"], name="cache_use_task"),
            models.Index(fields=["workflow", "name", "index", "id"], name="cache_use_workflow"),
            models.Index(
                fields=["tenant", "key", "stored_at"], name="cache_entry", condition=Q(expires_at__isnull=False)
            ),
            models.Index(fields=["expires_at"], name="cache_expiry", condition=Q(expires_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} of {self.name if self.index < 0 else f'{self.name}[{self.index}]'}"
