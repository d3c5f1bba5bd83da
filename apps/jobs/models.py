"""Jobs, the grants that give them capacity, and the attempts and placements that run them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.fleet.models import Node
from apps.quotas.models import QuotaNode
from apps.tenants.models import Tenant

from .states import ATTEMPT_LIVE, JOB_ACTIVE, AttemptState, JobState

_LIVE = sorted(ATTEMPT_LIVE)


class Job(models.Model):
    """The unit that is placed and run. `spec` is the normalised job spec (docs/architecture.md).

    `token` is the fencing token of its newest attempt and only grows. A pending job always has a `reason` from
    `engine.reasons`, with `detail` for people and `tried` (per flavor: what stood in the way).
    """

    # The index on (tenant, id) below serves it.
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    # So does the one on (owner, id).
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    name = models.CharField(max_length=200)
    # What made it: "" for people and the API, "run:12" for a task of a workflow run.
    origin = models.CharField(max_length=60, blank=True, default="")
    # The name of the workflow that it is a task of; budgets of workflows count by it.
    workflow = models.CharField(max_length=200, blank=True, default="")
    spec = models.JSONField()
    # Digest of everything in the spec that placement looks at: equal jobs are scored once.
    equivalence = models.CharField(max_length=32)
    # Others may want it near or away, or it others: it has labels, or says so.
    bonded = models.BooleanField(default=False)
    pool = models.CharField(max_length=63)
    priority = models.IntegerField(default=0)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.PENDING)
    held = models.BooleanField(default=False)
    reason = models.CharField(max_length=30, blank=True, default="submitted")
    detail = models.TextField(blank=True, default="")
    tried = models.JSONField(default=list)
    token = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    losses = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    end_reason = models.CharField(max_length=30, blank=True, default="")
    result = models.JSONField(null=True)
    submitted_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="pending") | ~Q(reason=""), name="job_pending_has_a_reason"
            ),
            models.CheckConstraint(
                condition=Q(state__in=sorted(JOB_ACTIVE)) | Q(ended_at__isnull=False), name="job_end_has_a_time"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "id"], name="job_tenant"),
            models.Index(fields=["tenant", "state", "id"], name="job_tenant_state"),
            models.Index(fields=["owner", "id"], name="job_owner", condition=Q(owner__isnull=False)),
            models.Index(fields=["state", "id"], name="job_active", condition=Q(state__in=sorted(JOB_ACTIVE))),
            models.Index(
                fields=["tenant"],
                name="job_bonded",
                condition=Q(bonded=True, state__in=["cancelling", "granted", "running"]),
            ),
            models.Index(fields=["ended_at"], name="job_ended", condition=Q(ended_at__isnull=False)),
            models.Index(fields=["origin"], name="job_origin", condition=~Q(origin="")),
            # The latest runs of one job, for the estimates of its next (the scheduler's run times).
            models.Index(
                fields=["tenant", "name", "ended_at"], name="job_runs", condition=Q(state__in=["failed", "succeeded"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.name}"


class JobLabel(models.Model):
    """A label of a job, `key=value`, as it is searched for; the spec has them all. Written once, with the job."""

    # Read from the label to the job, never the other way.
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+", db_index=False)
    label = models.CharField(max_length=127)

    class Meta:
        ordering = ["job_id"]
        constraints = [models.UniqueConstraint(fields=["label", "job"], name="job_label_once")]

    def __str__(self) -> str:
        return f"{self.label} of job {self.job_id}"


class Grant(models.Model):
    """Capacity given to a job, charged to a quota; a lease that ends by itself unless beats renew it.

    `amounts`: resource → integer, the whole gang. Where its groups have different flavors, `flavor` names them by group
    (engine.choices.named) and `shares` is what each group is charged: [{"flavor", "amounts"}, …]. `price` is what an
    hour of it costs, by the terms under which its nodes were lent when it was given.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="grants")
    quota_node = models.ForeignKey(QuotaNode, on_delete=models.PROTECT, related_name="grants", db_index=False)
    flavor = models.TextField()
    amounts = models.JSONField()
    shares = models.JSONField(null=True)
    price = models.DecimalField(max_digits=24, decimal_places=9, default=Decimal(0))
    created_at = models.DateTimeField()
    lease_expires_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["job"], condition=Q(released_at__isnull=True), name="grant_one_live_per_job"
            )
        ]
        indexes = [
            models.Index(fields=["lease_expires_at"], name="grant_lease", condition=Q(released_at__isnull=True))
        ]

    def __str__(self) -> str:
        return f"grant {self.pk} of job {self.job_id}"

    @property
    def charges(self) -> list[tuple[str, dict[str, int]]]:
        """What the quota is charged: (flavor, resource → integer), a flavor for each group if they have different ones.

        Twice the same flavor may be among them.
        """
        if self.shares is None:
            return [(self.flavor, self.amounts)]
        return [(share["flavor"], share["amounts"]) for share in self.shares]


def usage_of(
    flavor: str, amounts: Mapping[str, int], shares: Sequence[Mapping[str, Any]] | None
) -> dict[tuple[str, str], int]:
    """What a grant is charged by (flavor, resource), from its columns; zeros are left out."""
    if shares is None:
        return {(flavor, resource): amount for resource, amount in amounts.items() if amount}
    usage: dict[tuple[str, str], int] = {}
    for share in shares:
        for resource, amount in share["amounts"].items():
            key = (share["flavor"], resource)
            usage[key] = usage.get(key, 0) + amount
    return {key: amount for key, amount in usage.items() if amount}


class Attempt(models.Model):
    """One execution of a job under a grant. `token` is its fencing token: a newer attempt's is larger."""

    # Its unique constraint on (job, token) is the index.
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts", db_index=False)
    grant = models.OneToOneField(Grant, on_delete=models.CASCADE, related_name="attempt")
    token = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=AttemptState, default=AttemptState.GRANTED)
    exit_code = models.IntegerField(null=True)
    end_reason = models.CharField(max_length=30, blank=True, default="")
    detail = models.TextField(blank=True, default="")
    # Why its processes must stop although it is live: cancelled, a failed peer of the gang, a drained node.
    stop_reason = models.CharField(max_length=30, blank=True, default="")
    # For which job it was evicted, when, and by which rule (engine.preemption.Cause).
    preempted_by = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="evictions")
    preempted_at = models.DateTimeField(null=True)
    preempted_cause = models.CharField(max_length=30, blank=True, default="")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["job", "token"], name="attempt_token_once"),
            models.UniqueConstraint(fields=["job"], condition=Q(state__in=_LIVE), name="attempt_one_live_per_job"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.token} of job {self.job_id}"


class Placement(models.Model):
    """One member (group, rank) of an attempt on one node, with its share of the grant."""

    # Its unique constraint on (attempt, group, rank) is the index.
    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="placements", db_index=False)
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="placements")
    group = models.PositiveSmallIntegerField(default=0)
    rank = models.PositiveIntegerField(default=0)
    cpu_millicores = models.BigIntegerField()
    memory_bytes = models.BigIntegerField()
    storage_bytes = models.BigIntegerField()
    # [[card index, thousandths], …]
    gpus = models.JSONField(default=list)
    state = models.CharField(max_length=10, choices=AttemptState, default=AttemptState.GRANTED)
    pid = models.IntegerField(null=True)
    exit_code = models.IntegerField(null=True)
    end_reason = models.CharField(max_length=30, blank=True, default="")
    detail = models.TextField(blank=True, default="")
    enforced = models.JSONField(default=dict)
    usage = models.JSONField(default=dict)
    log_size = models.BigIntegerField(default=0)
    # The size that the agent reported at the end; the log is complete when log_size has reached it.
    log_expected = models.BigIntegerField(null=True)
    started_at = models.DateTimeField(null=True)
    # When it last said that it has written a checkpoint, never before its start.
    checkpoint_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["attempt_id", "group", "rank"]
        constraints = [
            models.UniqueConstraint(fields=["attempt", "group", "rank"], name="placement_rank_once"),
        ]
        indexes = [
            models.Index(fields=["node", "id"], name="placement_live", condition=Q(state__in=_LIVE)),
        ]

    def __str__(self) -> str:
        return f"placement {self.pk} on {self.node_id}"
