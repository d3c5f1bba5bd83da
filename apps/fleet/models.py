"""Clusters, nodes, their cards, the terms under which they are lent, and pools as live queries."""

from django.db import models
from django.db.models import F, Q

from apps.tenants.models import Domain, slug_validator
from engine.backfill import Mode
from engine.order import Reach

from .states import NodeState


class Cluster(models.Model):
    """Nodes under one control plane."""

    class Kind(models.TextChoices):
        AGENTS = "agents"
        KUBERNETES = "kubernetes"
        # Simulated nodes of tests and load tests.
        FAKE = "fake"

    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="clusters")
    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.AGENTS)
    region = models.CharField(max_length=63, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """A machine. Capacity and allocation are integers: millicores, bytes, megabits a second.

    `allocated_*` are the sums of its live placements, kept in the same transaction as the grants.
    """

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="nodes")
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=10, choices=NodeState, default=NodeState.READY)
    # Where a lost node goes when it returns.
    intended_state = models.CharField(max_length=10, choices=NodeState, default=NodeState.READY)
    labels = models.JSONField(default=dict)
    taints = models.JSONField(default=list)
    cpu_millicores = models.BigIntegerField(default=0)
    memory_bytes = models.BigIntegerField(default=0)
    storage_bytes = models.BigIntegerField(default=0)
    network_mbps = models.BigIntegerField(default=0)
    allocated_cpu_millicores = models.BigIntegerField(default=0)
    allocated_memory_bytes = models.BigIntegerField(default=0)
    allocated_storage_bytes = models.BigIntegerField(default=0)
    running = models.PositiveIntegerField(default=0)
    runtimes = models.JSONField(default=list)
    isolation = models.JSONField(default=dict)
    system = models.JSONField(default=dict)
    agent_version = models.CharField(max_length=40, blank=True, default="")
    # The number of its agent's newest connection; only grows. No older connection may speak for the node.
    connection = models.BigIntegerField(default=0)
    last_seen_at = models.DateTimeField(null=True)
    joined_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "name"], condition=~Q(state="removed"), name="node_name_once"
            ),
            models.CheckConstraint(
                condition=Q(allocated_cpu_millicores__gte=0)
                & Q(allocated_memory_bytes__gte=0)
                & Q(allocated_storage_bytes__gte=0),
                name="node_allocation_not_negative",
            ),
        ]
        indexes = [models.Index(fields=["state", "id"], name="node_state")]

    def __str__(self) -> str:
        return self.name


class Gpu(models.Model):
    """One card of a node; shares are thousandths of it."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="gpus")
    index = models.PositiveSmallIntegerField()
    uuid = models.CharField(max_length=100, blank=True, default="")
    model = models.CharField(max_length=100)
    memory_bytes = models.BigIntegerField(default=0)
    allocated_milli = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["node_id", "index"]
        constraints = [
            models.UniqueConstraint(fields=["node", "index"], name="gpu_index_once"),
            models.CheckConstraint(condition=Q(allocated_milli__lte=1000), name="gpu_not_over_allocated"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id}/{self.index} {self.model}"


class JoinToken(models.Model):
    """A one-time right to join one node to a cluster; shown once, stored as a digest."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="join_tokens")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True)
    node = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"join token {self.pk} for {self.cluster}"


class NodeCredential(models.Model):
    """What a node's agent proves itself with; reaches only that node's own attempts."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="credentials")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"credential {self.pk} of {self.node_id}"


class Contribution(models.Model):
    """A domain's terms for lending the nodes of a cluster: how much, to whom, when, at what price."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="contributions")
    # Share of each node's capacity that is lent, in per cent.
    share_percent = models.PositiveSmallIntegerField(default=100)
    # Domains that may use it; empty means every domain.
    consumers = models.ManyToManyField(Domain, related_name="+", blank=True)
    trust = models.PositiveSmallIntegerField(default=1)
    # Under whose law data on its nodes lies: ["EU", "DE"].
    jurisdictions = models.JSONField(default=list)
    price_per_cpu_hour = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    price_per_gpu_hour = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    starts_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField(null=True)
    notice_seconds = models.PositiveIntegerField(default=0)
    # When in the week: [{"days": ["mon"], "from": "18:00", "to": "08:00"}], by the clock of the zone; empty: always.
    windows = models.JSONField(default=list)
    timezone = models.CharField(max_length=63, default="UTC")
    # What all other domains together may hold of it at once; None: all that is lent.
    cap_cpu_millicores = models.BigIntegerField(null=True)
    cap_memory_bytes = models.BigIntegerField(null=True)
    cap_gpu_milli = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(share_percent__gte=1) & Q(share_percent__lte=100), name="contribution_share"
            ),
            models.CheckConstraint(
                condition=Q(starts_at__isnull=True) | Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")),
                name="contribution_period",
            ),
            models.CheckConstraint(
                condition=Q(cap_cpu_millicores__gte=0) & Q(cap_memory_bytes__gte=0) & Q(cap_gpu_milli__gte=0),
                name="contribution_cap_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.share_percent} % of {self.cluster}"


class Region(models.Model):
    """What operators say of a region that clusters or labels of nodes name.

    `carbon` is grams of CO₂ for each kWh. `round_trips`: milliseconds to other regions and back; each way is said in
    one of its two regions.
    """

    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    carbon = models.FloatField(null=True)
    round_trips = models.JSONField(default=dict)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Pool(models.Model):
    """A live query over contributed nodes; what tenants see and quotas refer to.

    `query`: {"clusters": [...], "domains": [...], "labels": {key: [values]}, "regions": [...],
    "gpu_models": [...], "trust": minimum}; an absent key does not restrict.
    """

    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    description = models.CharField(max_length=300, blank=True, default="")
    query = models.JSONField(default=dict)
    # For which of its waiting jobs starts are reserved (engine.backfill).
    backfill = models.CharField(
        max_length=12, choices=[(mode.value, mode.value) for mode in Mode], default=Mode.EASY.value
    )
    # Among whose waiting jobs priority is compared (engine.order).
    priority_reach = models.CharField(
        max_length=20, choices=[(reach.value, reach.value) for reach in Reach], default=Reach.WITHIN.value
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Flavor(models.Model):
    """A class of resources inside a pool. A node belongs to the first flavor, by position, that matches it.

    `match`: {"labels": {key: [values]}, "gpu_models": [...]}; empty matches every node.
    """

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="flavors")
    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    match = models.JSONField(default=dict)
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["pool_id", "position", "id"]

    def __str__(self) -> str:
        return self.name


class Intake(models.Model):
    """Since when the portal has been listening to agents, so that its own outage is not taken for theirs."""

    name = models.CharField(max_length=40, primary_key=True)
    up_since = models.DateTimeField()
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
