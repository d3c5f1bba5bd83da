"""Until when runs and tasks must have ended."""

from django.db import models
from django.db.models import Q

from rmctl.spec.quantities import format_duration


class Deadline(models.Model):
    """A moment by which a run, or a task of it (`task`), must have ended. `due_at` is null once it has passed while
    that still went on (`missed_at`); the row of one that ended in time goes when it is due."""

    class Kind(models.TextChoices):
        DEADLINE = "deadline"  # It is told of, and the run goes on.
        TIME_LIMIT = "time_limit"  # The run fails.

    # The unique constraint is the index.
    run = models.ForeignKey("workflows.Run", on_delete=models.CASCADE, related_name="deadlines", db_index=False)
    task = models.CharField(max_length=200, blank=True, default="")
    kind = models.CharField(max_length=10, choices=Kind)
    after_seconds = models.PositiveIntegerField()
    since = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    missed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["run_id", "task", "kind"]
        constraints = [models.UniqueConstraint(fields=["run", "task", "kind"], name="deadline_once")]
        indexes = [models.Index(fields=["due_at"], name="deadline_due", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return f"{self.kind} of run {self.run_id} {self.task}".rstrip()

    @property
    def after(self) -> str:
        """How long after `since` it is due: `2h`."""
        return format_duration(self.after_seconds)
