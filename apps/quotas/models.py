"""The quota tree and its ledger. Arithmetic is in `engine.quota`; these are its rows."""

import re
from datetime import timedelta
from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.tenants.models import Domain, Tenant, slug_validator
from engine import queues
from engine.budgets import MONEY

# A budget's window: hours or days that have just passed.
WINDOW = re.compile(r"([1-9]\d{0,3})([hd])", re.ASCII)

class Resource(models.TextChoices):
    """What is counted: millicores, bytes, bytes, thousandths of a card."""

    CPU = "cpu"
    MEMORY = "memory"
    STORAGE = "storage"
    GPU = "gpu"


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ")) for word in words]


class QuotaNode(models.Model):
    """A cohort (inner node) or, with a tenant, a leaf that jobs are charged to."""

    parent = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="children")
    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    tenant = models.OneToOneField(Tenant, null=True, on_delete=models.PROTECT, related_name="quota")
    weight = models.FloatField(default=1.0)
    # The highest priority that jobs may name: the nearest on the way up that is set holds; null: as above.
    highest_priority = models.SmallIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # The rules of a leaf as a queue (engine.queues.QueueRules); by default nobody is evicted.
    strategy = models.CharField(
        max_length=20, choices=_choices(queues.Strategy), default=queues.Strategy.BEST_EFFORT_FIFO.value
    )
    within_queue = models.CharField(
        max_length=40, choices=_choices(queues.Policy), default=queues.Policy.NEVER.value
    )
    reclaim = models.CharField(max_length=40, choices=_choices(queues.Policy), default=queues.Policy.NEVER.value)
    borrow = models.CharField(max_length=40, choices=_choices(queues.Policy), default=queues.Policy.NEVER.value)
    borrow_threshold = models.IntegerField(null=True)
    when_can_borrow = models.CharField(
        max_length=20, choices=_choices(queues.Fungibility), default=queues.Fungibility.MAY_STOP_SEARCH.value
    )
    when_can_preempt = models.CharField(
        max_length=20, choices=_choices(queues.Fungibility), default=queues.Fungibility.TRY_NEXT_FLAVOR.value
    )
    preference = models.CharField(
        max_length=30, choices=_choices(queues.Preference), default=queues.Preference.BORROWING_OVER_PREEMPTION.value
    )
    # Its jobs are not evicted before they have run for so long.
    minimum_run_seconds = models.PositiveIntegerField(default=60)

    class Meta:
        ordering = ["name"]
        constraints = [models.CheckConstraint(condition=Q(weight__gte=0), name="quota_weight_not_negative")]

    def __str__(self) -> str:
        return self.name


class QuotaLimit(models.Model):
    """Nominal quota of one (flavor, resource) at a node, and how far it borrows and lends."""

    node = models.ForeignKey(QuotaNode, on_delete=models.CASCADE, related_name="limits")
    flavor = models.CharField(max_length=63)
    resource = models.CharField(max_length=10, choices=Resource)
    nominal = models.BigIntegerField()
    borrowing_limit = models.BigIntegerField(null=True)
    lending_limit = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["node_id", "flavor", "resource"]
        constraints = [
            models.UniqueConstraint(fields=["node", "flavor", "resource"], name="quota_limit_once"),
            models.CheckConstraint(
                condition=Q(nominal__gte=0)
                & (Q(borrowing_limit__isnull=True) | Q(borrowing_limit__gte=0))
                & (Q(lending_limit__isnull=True) | Q(lending_limit__gte=0)),
                name="quota_limit_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.flavor}/{self.resource} {self.nominal}"


class QuotaUsage(models.Model):
    """What a leaf holds now of one (flavor, resource); the sum of its unreleased grants."""

    node = models.ForeignKey(QuotaNode, on_delete=models.CASCADE, related_name="usages")
    flavor = models.CharField(max_length=63)
    resource = models.CharField(max_length=10, choices=Resource)
    used = models.BigIntegerField(default=0)
    # What was used in the past, decayed with the half-life of the settings (engine.history).
    average = models.FloatField(db_default=0.0)
    averaged_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["node_id", "flavor", "resource"]
        constraints = [
            models.UniqueConstraint(fields=["node", "flavor", "resource"], name="quota_usage_once"),
            models.CheckConstraint(condition=Q(used__gte=0), name="quota_usage_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.flavor}/{self.resource} {self.used}"


class Measure(models.TextChoices):
    """What a budget counts: jobs that wait, jobs that run, submissions a minute, hours of cores and of cards, and what
    these cost where nodes are lent at a price."""

    PENDING = "pending", "Jobs that wait"
    RUNNING = "running", "Jobs at once"
    SUBMISSIONS = "submissions", "Submissions a minute"
    CPU_HOURS = "cpu_hours", "CPU hours"
    GPU_HOURS = "gpu_hours", "GPU hours"
    COST = "cost", "Cost"


class Period(models.TextChoices):
    """Calendar periods in UTC; a week begins on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


# Measures of use over time, with the resource that is used; one unit is an hour of 1000 of it.
OVER_TIME: dict[str, str] = {Measure.CPU_HOURS: Resource.CPU, Measure.GPU_HOURS: Resource.GPU, Measure.COST: MONEY}


class SetBy(models.TextChoices):
    """With whose right a budget was set; who has none of at least that rank cannot change it."""

    OPERATOR = "operator"
    DOMAIN = "domain"
    TENANT = "tenant"


class Budget(models.Model):
    """At most so much of a measure for a domain, a tenant, one of its workflows or members, or a person everywhere; a
    soft one only warns.

    `period` is one of the calendar (Period), or a window such as `24h` or `7d`: the time that has just passed. A
    workflow is told by its tenant and its name, which is all that this layer knows of it. `warned_on` is the first day
    of the period in which it was last warned of, at `warned_percent`; counts and windows are warned of by the day.
    """

    domain = models.ForeignKey(Domain, null=True, on_delete=models.CASCADE, related_name="budgets")
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="budgets")
    workflow = models.CharField(max_length=200, blank=True, default="")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="budgets")
    measure = models.CharField(max_length=20, choices=Measure)
    period = models.CharField(max_length=10, blank=True, default="")
    amount = models.FloatField()
    hard = models.BooleanField(default=True)
    set_by = models.CharField(max_length=10, choices=SetBy, default=SetBy.OPERATOR)
    warned_on = models.DateField(null=True)
    warned_percent = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["domain", "tenant", "workflow", "user", "measure", "period", "set_by"],
                name="budget_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=Q(domain__isnull=False, tenant__isnull=True, user__isnull=True)
                | Q(domain__isnull=True, tenant__isnull=False)
                | Q(domain__isnull=True, tenant__isnull=True, user__isnull=False),
                name="budget_of_one",
            ),
            models.CheckConstraint(
                condition=Q(workflow="") | Q(tenant__isnull=False, user__isnull=True), name="budget_workflow_of_tenant"
            ),
            models.CheckConstraint(condition=Q(amount__gte=0), name="budget_not_negative"),
            models.CheckConstraint(
                condition=Q(measure__in=sorted(OVER_TIME)) ^ Q(period=""), name="budget_period_of_use"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.of}: {self.amount:g} {self.measure}{f' a {self.period}' if self.period else ''}"

    @property
    def window(self) -> timedelta | None:
        """How far back it looks, if its period is no calendar one."""
        found = WINDOW.fullmatch(self.period)
        return found and timedelta(**{"hours" if found[2] == "h" else "days": int(found[1])})

    @property
    def of(self) -> str:
        """Whose it is, for people."""
        if self.tenant is not None:
            part = f"workflow {self.workflow} of " if self.workflow else f"{self.user} in " if self.user else ""
            return f"{part}tenant {self.tenant.slug}"
        return f"domain {self.domain.slug}" if self.domain is not None else f"person {self.user}"


class _Consumed(models.Model):
    """Millicores or thousandths of a card (of MONEY: of what an hour costs), times milliseconds.

    Added when a grant ends, in its transaction. `owner` is the id of a person, 0 for none; `workflow` the name of one
    of the tenant's, "" for jobs of none.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    owner = models.BigIntegerField(default=0)
    workflow = models.CharField(max_length=200, default="")
    resource = models.CharField(max_length=10)
    # Wide enough for any price.
    amount = models.DecimalField(max_digits=30, decimal_places=0, default=0)

    class Meta:
        abstract = True


class Consumption(_Consumed):
    """What ended grants have used on one day (UTC)."""

    day = models.DateField()

    class Meta:
        ordering = ["day", "tenant_id", "owner", "resource"]
        constraints = [
            models.UniqueConstraint(fields=["day", "tenant", "owner", "workflow", "resource"], name="consumption_once")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.tenant_id}/{self.owner} {self.resource} {self.amount}"


class HourlyConsumption(_Consumed):
    """The same by the hour, for windows; kept for as long as the longest window looks back."""

    hour = models.DateTimeField()

    class Meta:
        ordering = ["hour", "tenant_id", "owner", "resource"]
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "tenant", "owner", "workflow", "resource"], name="hourly_consumption_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}h {self.tenant_id}/{self.owner} {self.resource} {self.amount}"
