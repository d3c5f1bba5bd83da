"""What workflows and runs keep for their tasks: values under keys, each with a version that only grows."""

from django.db import models
from django.db.models import Q

from apps.tenants.models import Tenant


class StateValue(models.Model):
    """A JSON value under a key of a workflow (which outlives its runs) or of one run.

    `version` comes from one sequence for all rows, so that none ever comes again, not even of a key that was deleted
    and set anew. No constraint of the database watches the run: a task that writes is not to lock its row, which the
    advance loop would then pass over.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    # The unique constraints below are the indexes.
    workflow = models.ForeignKey("Workflow", on_delete=models.CASCADE, related_name="state", db_index=False)
    run = models.ForeignKey(
        "Run", null=True, on_delete=models.CASCADE, related_name="state_values", db_index=False, db_constraint=False
    )
    key = models.CharField(max_length=200)
    value = models.JSONField()
    size = models.PositiveIntegerField()
    version = models.BigIntegerField()
    updated_at = models.DateTimeField()
    updated_by = models.CharField(max_length=250)

    class Meta:
        ordering = ["key"]
        constraints = [
            models.UniqueConstraint(
                fields=["workflow", "key"], condition=Q(run__isnull=True), name="state_of_workflow"
            ),
            models.UniqueConstraint(fields=["run", "key"], condition=Q(run__isnull=False), name="state_of_run"),
        ]

    def __str__(self) -> str:
        return f"{self.key} of {f'run {self.run_id}' if self.run_id else f'workflow {self.workflow_id}'}"
