"""The quota tree and its ledger. Arithmetic is in `engine.quota`; these are its rows."""

from django.db import models
from django.db.models import Q

from apps.tenants.models import Tenant, slug_validator


class Resource(models.TextChoices):
    """What is counted: millicores, bytes, bytes, thousandths of a card."""

    CPU = "cpu"
    MEMORY = "memory"
    STORAGE = "storage"
    GPU = "gpu"


class QuotaNode(models.Model):
    """A cohort (inner node) or, with a tenant, a leaf that jobs are charged to."""

    parent = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="children")
    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    tenant = models.OneToOneField(Tenant, null=True, on_delete=models.PROTECT, related_name="quota")
    weight = models.FloatField(default=1.0)
    created_at = models.DateTimeField(auto_now_add=True)

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

    class Meta:
        ordering = ["node_id", "flavor", "resource"]
        constraints = [
            models.UniqueConstraint(fields=["node", "flavor", "resource"], name="quota_usage_once"),
            models.CheckConstraint(condition=Q(used__gte=0), name="quota_usage_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.flavor}/{self.resource} {self.used}"
