"""What the scheduler concluded, kept as data: the same record that decided also explains."""

from django.db import models

from apps.jobs.models import Job


class Decision(models.Model):
    """One conclusion about one job: placed where and with which scores, or pending for which reason.

    Written when the conclusion differs from the one before. `tried` holds, per flavor, the quota arithmetic
    and the funnel of filters.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="decisions")
    at = models.DateTimeField()
    outcome = models.CharField(
        max_length=10,
        choices=[("grant", "granted"), ("pend", "pending"), ("preempt", "waits for others to stop")],
    )
    reason = models.CharField(max_length=30, blank=True, default="")
    detail = models.TextField(blank=True, default="")
    # Of all members, or those of the groups named together (engine.choices.named).
    flavor = models.TextField(blank=True, default="")
    tried = models.JSONField(default=list)
    scores = models.JSONField(default=dict)
    nodes = models.JSONField(default=list)
    # The start that is kept for it while it waits.
    reserved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.outcome} {self.reason} job {self.job_id}"


class Reservation(models.Model):
    """A start that is kept for a job that waits, as the latest cycle reserved it; gone when it no longer is."""

    job = models.OneToOneField(Job, primary_key=True, on_delete=models.CASCADE, related_name="reservation")
    starts_at = models.DateTimeField()

    class Meta:
        ordering = ["starts_at"]

    def __str__(self) -> str:
        return f"job {self.job_id} at {self.starts_at:%F %T}"


class KeptPlaces(models.Model):
    """Where a waiting job of several groups is to be when its reserved start has come (engine.kept): its choice of
    flavors, and of each member the group, the rank, the node's id and the cards."""

    job = models.OneToOneField(Job, primary_key=True, on_delete=models.CASCADE, related_name="kept_places")
    choice = models.TextField()
    members = models.JSONField()

    def __str__(self) -> str:
        return f"{len(self.members)} members of job {self.job_id}"


class EstimatedStart(models.Model):
    """The first estimate of when a job will start, as it was made and as it was told (engine.calibration).

    What came of it is seen in the job's attempts.
    """

    job = models.OneToOneField(Job, primary_key=True, on_delete=models.CASCADE, related_name="estimated_start")
    made_at = models.DateTimeField(db_index=True)
    p50 = models.DateTimeField()
    p90 = models.DateTimeField()
    told_p50 = models.DateTimeField()
    told_p90 = models.DateTimeField()

    class Meta:
        ordering = ["-made_at"]

    def __str__(self) -> str:
        return f"job {self.job_id} by {self.told_p50:%F %T} or {self.told_p90:%F %T}"


class Cycle(models.Model):
    """One pass of the scheduler that changed something: how long each step took and what came of it."""

    at = models.DateTimeField(db_index=True)
    considered = models.PositiveIntegerField()
    granted = models.PositiveIntegerField()
    # Grants that no longer held when apply looked again under the row locks.
    refused = models.PositiveIntegerField(default=0)
    observe_ms = models.FloatField()
    decide_ms = models.FloatField()
    apply_ms = models.FloatField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"cycle {self.pk}: {self.granted} of {self.considered}"
