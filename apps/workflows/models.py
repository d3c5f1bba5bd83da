"""Workflows, their immutable versions, and the runs and tasks of an execution."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.jobs.models import Job
from apps.tenants.models import Tenant

from .cache_models import CacheUse
from .dataset_models import (
    Dataset,
    DatasetEvent,
    DatasetTrigger,
    DatasetUse,
    Webhook,
    WebhookDelivery,
)
from .deadline_models import Deadline
from .slot_models import PathHistory, SlotClaim, SlotPool
from .state_models import StateValue
from .states import RUN_ACTIVE, TASK_ACTIVE, TASK_IN_FLIGHT, BackfillState, RunState, TaskState
from .wait_models import Approval, Wait

__all__ = [
    "Approval", "Backfill", "CacheUse", "Dataset", "DatasetEvent", "DatasetTrigger", "DatasetUse", "Deadline",
    "PastWait", "PathHistory", "Run", "SlotClaim", "SlotPool", "StateValue", "Task", "TaskTry", "Wait", "Webhook",
    "WebhookDelivery", "Workflow", "WorkflowVersion",
]  # fmt: skip


class Workflow(models.Model):
    """A named DAG of a tenant; what it does is in its versions, of which `current` is the one that new runs get."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="workflows")
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    current = models.ForeignKey("WorkflowVersion", null=True, on_delete=models.SET_NULL, related_name="+")
    paused = models.BooleanField(default=False)
    schedule = models.CharField(max_length=300, blank=True, default="")
    timezone = models.CharField(max_length=60, default="UTC")
    catchup = models.BooleanField(default=False)
    # Whether a task has ever waited for a run of it: only then does the end of a run look for waits.
    awaited = models.BooleanField(default=False)
    # When the timetable makes the next run, and the logical time (start of the data interval) it will have.
    next_run_at = models.DateTimeField(null=True)
    next_logical_time = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="workflow_name_once")]
        indexes = [
            models.Index(
                fields=["next_run_at"], name="workflow_due", condition=Q(paused=False, next_run_at__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(models.Model):
    """A definition, found by the SHA-256 of its canonical JSON; never changed."""

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    definition = models.JSONField()
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["workflow", "number"], name="version_number_once"),
            models.UniqueConstraint(fields=["workflow", "digest"], name="version_digest_once"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} v{self.number}"


class Backfill(models.Model):
    """Runs of one version for a range of its schedule's logical times, made little by little with a cap of their own.

    `total` times from `first` to `last`; `position` of them have been looked at in the order asked for, of which
    `made` got a run. The others had a run already that `existing` says to leave as it is.
    """

    class Existing(models.TextChoices):
        """Which runs that a time has already do not keep the backfill from making a new one."""

        NONE = "none"
        FAILED = "failed"
        COMPLETED = "completed"

    class Order(models.TextChoices):
        FORWARD = "forward"
        BACKWARD = "backward"

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="backfills")
    version = models.ForeignKey(WorkflowVersion, on_delete=models.PROTECT, related_name="+")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="backfills")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=10, choices=BackfillState, default=BackfillState.RUNNING)
    first = models.DateTimeField()
    last = models.DateTimeField()
    order = models.CharField(max_length=10, choices=Order, default=Order.FORWARD)
    existing = models.CharField(max_length=10, choices=Existing, default=Existing.NONE)
    max_active_runs = models.PositiveIntegerField()
    # Whether its runs take no earlier results from the cache.
    no_cache = models.BooleanField(default=False, db_default=False)
    params = models.JSONField(default=dict)
    note = models.CharField(max_length=500, blank=True, default="")
    total = models.PositiveIntegerField()
    position = models.PositiveIntegerField(default=0)
    made = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], name="backfill_running", condition=Q(state="running")),
            models.Index(fields=["workflow", "id"], name="backfill_workflow"),
        ]

    def __str__(self) -> str:
        return f"backfill {self.pk} of {self.workflow_id}"


class Run(models.Model):
    """One execution of one version."""

    class Trigger(models.TextChoices):
        MANUAL = "manual"
        SCHEDULE = "schedule"
        WORKFLOW = "workflow"
        BACKFILL = "backfill"
        DATASET = "dataset"
        WEBHOOK = "webhook"

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="runs")
    version = models.ForeignKey(WorkflowVersion, on_delete=models.PROTECT, related_name="runs")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="runs")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=10, choices=RunState, default=RunState.QUEUED)
    trigger = models.CharField(max_length=10, choices=Trigger, default=Trigger.MANUAL)
    logical_time = models.DateTimeField()
    # The data interval of a workflow with a schedule; without one there is none.
    data_interval_start = models.DateTimeField(null=True)
    data_interval_end = models.DateTimeField(null=True)
    params = models.JSONField(default=dict)
    note = models.CharField(max_length=500, blank=True, default="")
    # The task that started it, and how many runs have started each other down to this one.
    cause = models.ForeignKey("Task", null=True, on_delete=models.SET_NULL, related_name="+", db_index=False)
    depth = models.PositiveSmallIntegerField(default=0)
    note_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    note_at = models.DateTimeField(null=True)
    # The unique constraint below is the index.
    backfill = models.ForeignKey(
        Backfill, null=True, on_delete=models.SET_NULL, related_name="runs", db_index=False
    )
    # How often people cleared or marked tasks of it: what was observed of such a run is looked at twice (`fence`).
    edits = models.PositiveIntegerField(default=0)
    # Whether its tasks with a cache run although an earlier result would do; what they make is kept for others.
    no_cache = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["workflow", "logical_time"], condition=Q(trigger="schedule"), name="run_scheduled_once"
            ),
            models.UniqueConstraint(
                fields=["backfill", "logical_time"], condition=Q(backfill__isnull=False), name="run_backfilled_once"
            ),
        ]
        indexes = [
            models.Index(fields=["workflow", "id"], name="run_workflow"),
            models.Index(fields=["tenant", "id"], name="run_tenant"),
            models.Index(fields=["workflow", "logical_time"], name="run_logical"),
            models.Index(fields=["cause"], name="run_cause", condition=Q(cause__isnull=False)),
            models.Index(
                fields=["workflow", "logical_time"], name="run_backfilled", condition=Q(trigger="backfill")
            ),
            models.Index(fields=["state", "id"], name="run_active", condition=Q(state__in=sorted(RUN_ACTIVE))),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.workflow_id}"


class PastWait(models.Model):
    """A task that waits for the run before its own (`depends_on_past`): until `names` of that run have succeeded or
    were skipped. It is there only as long as the task waits."""

    task = models.OneToOneField("Task", on_delete=models.CASCADE, related_name="past_wait")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="+")
    past = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="+")
    names = models.JSONField()

    def __str__(self) -> str:
        return f"task {self.task_id} waits for run {self.past_id}"


class Task(models.Model):
    """One node of a run. A mapped task has a group row (index -1, `width` set) and a row per instance.

    `succeeded failed skipped` count finished upstream tasks (for a group row that has been expanded: its own
    finished instances), so that readiness is O(out-degree) for each task that ends. With `restart` its job is a
    former one that is being stopped: when that has ended, the task waits anew, however it ended.
    """

    # Its unique constraint on (run, name, index) is the index.
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tasks", db_index=False)
    name = models.CharField(max_length=200)
    index = models.IntegerField(default=-1)
    width = models.PositiveIntegerField(null=True)
    state = models.CharField(max_length=15, choices=TaskState, default=TaskState.WAITING)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="task")
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    detail = models.TextField(blank=True, default="")
    # What an instance is called, where the definition says how.
    label = models.CharField(max_length=200, null=True, db_default=None)
    # Of a task without a job; others have their job's.
    result = models.JSONField(null=True)
    restart = models.BooleanField(default=False, db_default=False)
    queued_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["run_id", "id"]
        constraints = [models.UniqueConstraint(fields=["run", "name", "index"], name="task_once")]
        indexes = [
            models.Index(fields=["run", "state"], name="task_run_active", condition=Q(state__in=sorted(TASK_ACTIVE))),
            models.Index(fields=["id"], name="task_in_flight", condition=Q(state__in=sorted(TASK_IN_FLIGHT))),
        ]

    def __str__(self) -> str:
        return self.name if self.index < 0 else f"{self.name}[{self.index}]"


class TaskTry(models.Model):
    """How a task or an instance had ended, or stood, when somebody cleared or marked it. Its name and not its row is
    kept: the instances of a mapped task are made anew, and another version may lack the task."""

    # Its unique constraint is the index.
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tries", db_index=False)
    name = models.CharField(max_length=200)
    index = models.IntegerField(default=-1)
    number = models.PositiveIntegerField()
    version = models.ForeignKey(WorkflowVersion, on_delete=models.PROTECT, related_name="+", db_index=False)
    state = models.CharField(max_length=15, choices=TaskState)
    width = models.PositiveIntegerField(null=True)
    job = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="tries")
    detail = models.TextField(blank=True, default="")
    label = models.CharField(max_length=200, null=True)
    queued_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField()
    closed_by = models.CharField(max_length=200)

    class Meta:
        ordering = ["run_id", "name", "index", "number"]
        constraints = [models.UniqueConstraint(fields=["run", "name", "index", "number"], name="try_once")]

    def __str__(self) -> str:
        return f"try {self.number} of {self.name if self.index < 0 else f'{self.name}[{self.index}]'}"
