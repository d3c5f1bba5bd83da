"""What the fleet's routes take and answer."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from apps.core.api import Integer, StrictSerializer, Text
from engine.backfill import Mode
from engine.order import Reach

from .commands.contributions import MAX_CAP
from .models import Cluster, Contribution, Flavor, Gpu, JoinToken, Node, Pool, Region
from .queries import pool_members
from .validators import TAINT_EFFECTS
from .windows import DAYS


class ClusterBody(StrictSerializer):
    domain = Text(max_length=63, help_text="Slug of the domain that owns it.")
    name = Text(max_length=63)
    kind = serializers.ChoiceField(choices=[Cluster.Kind.AGENTS, Cluster.Kind.KUBERNETES], default="agents")
    region = Text(max_length=63, default="", allow_blank=True)


class ClusterChange(StrictSerializer):
    region = Text(max_length=63, allow_blank=True, required=False)
    domain = Text(max_length=63, required=False, help_text="Slug of the domain that is to own it.")


class ClusterAnswer(serializers.ModelSerializer[Cluster]):
    domain: Any = serializers.CharField(source="domain.slug", read_only=True)

    class Meta:
        model = Cluster
        fields = ("id", "name", "domain", "kind", "region", "created_at")
        read_only_fields = fields


class GpuAnswer(serializers.ModelSerializer[Gpu]):
    class Meta:
        model = Gpu
        fields = ("index", "uuid", "model", "memory_bytes", "allocated_milli")
        read_only_fields = fields


class TaintBody(StrictSerializer):
    key = Text(max_length=63)
    value = Text(max_length=63, default="", allow_blank=True)
    effect = serializers.ChoiceField(choices=TAINT_EFFECTS, default="NoSchedule")


class NodeAnswer(serializers.ModelSerializer[Node]):
    cluster: Any = serializers.CharField(source="cluster.name", read_only=True)
    domain = serializers.CharField(source="cluster.domain.slug", read_only=True)
    region = serializers.CharField(source="cluster.region", read_only=True)
    labels: Any = serializers.DictField(child=serializers.CharField())
    taints: Any = TaintBody(many=True)
    runtimes: Any = serializers.ListField(child=serializers.CharField())
    isolation: Any = serializers.DictField(child=serializers.CharField())
    system: Any = serializers.DictField()
    gpus = GpuAnswer(many=True, read_only=True)
    telemetry: Any = serializers.DictField(
        read_only=True, allow_null=True, default=None, help_text="The latest sample, if there is one."
    )

    class Meta:
        model = Node
        fields = (
            "id",
            "name",
            "cluster",
            "domain",
            "region",
            "state",
            "intended_state",
            "labels",
            "taints",
            "cpu_millicores",
            "memory_bytes",
            "storage_bytes",
            "network_mbps",
            "allocated_cpu_millicores",
            "allocated_memory_bytes",
            "allocated_storage_bytes",
            "running",
            "gpus",
            "telemetry",
            "runtimes",
            "isolation",
            "system",
            "agent_version",
            "last_seen_at",
            "joined_at",
        )
        read_only_fields = fields


class NodeChange(StrictSerializer):
    labels = serializers.DictField(child=Text(max_length=63, allow_blank=True), required=False)
    taints = TaintBody(many=True, required=False)


class CredentialAnswer(serializers.Serializer[Any]):
    node = serializers.IntegerField()
    credential = serializers.CharField(help_text="Shown this one time.")


class JoinTokenBody(StrictSerializer):
    cluster = Text(max_length=63, help_text="Name of the cluster to join.")
    expires_in_seconds = Integer(min_value=60, max_value=7 * 86400, default=3600)


class JoinTokenAnswer(serializers.ModelSerializer[JoinToken]):
    cluster: Any = serializers.CharField(source="cluster.name", read_only=True)
    node: Any = serializers.CharField(source="node.name", read_only=True, allow_null=True, default=None)

    class Meta:
        model = JoinToken
        fields: tuple[str, ...] = (
            "id",
            "cluster",
            "created_by",
            "created_at",
            "expires_at",
            "used_at",
            "node",
        )
        read_only_fields: tuple[str, ...] = fields


class NewJoinTokenAnswer(JoinTokenAnswer):
    token = serializers.CharField(read_only=True, help_text="Shown this one time.")

    class Meta(JoinTokenAnswer.Meta):
        fields = (*JoinTokenAnswer.Meta.fields, "token")
        read_only_fields = fields


class Price(serializers.DecimalField):
    """A price with six decimal places."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=12, decimal_places=6, min_value=0, max_value=100_000, **options)


# `from` is a word of the language, so that it cannot stand in the body of a class.
WindowBody = type(
    "WindowBody",
    (StrictSerializer,),
    {
        "__doc__": "A time of the week in which it is lent.",
        "__module__": __name__,
        "days": serializers.ListField(child=serializers.CharField(max_length=20), help_text=", ".join(DAYS)),
        "from": Text(max_length=5, help_text="HH:MM"),
        "to": Text(max_length=5, help_text="HH:MM or 24:00; an earlier time than `from` is on the next day."),
    },
)
_CAP = "What all other domains together may hold of it at once; null: all that is lent."


class TermsBody(StrictSerializer):
    share_percent = Integer(min_value=1, max_value=100, required=False)
    consumers = serializers.ListField(
        child=Text(max_length=63),
        required=False,
        max_length=1000,
        help_text="Slugs of the domains that may use it; empty: every domain.",
    )
    trust = Integer(min_value=0, max_value=100, required=False)
    jurisdictions = serializers.ListField(
        child=Text(max_length=7),
        required=False,
        max_length=50,
        help_text="Under whose law data on its nodes lies: EU, DE, US-CA.",
    )
    price_per_cpu_hour = Price(required=False)
    price_per_gpu_hour = Price(required=False)
    starts_at = serializers.DateTimeField(required=False, allow_null=True)
    ends_at = serializers.DateTimeField(required=False, allow_null=True)
    notice_seconds = Integer(min_value=0, max_value=366 * 86400, required=False)
    windows: Any = WindowBody(many=True, required=False, help_text="When in the week; empty: always.")
    timezone = Text(max_length=63, required=False, help_text="The zone by whose clock the windows are.")
    cap_cpu_millicores = Integer(min_value=0, max_value=MAX_CAP, required=False, allow_null=True, help_text=_CAP)
    cap_memory_bytes = Integer(min_value=0, max_value=MAX_CAP, required=False, allow_null=True, help_text=_CAP)
    cap_gpu_milli = Integer(min_value=0, max_value=MAX_CAP, required=False, allow_null=True, help_text=_CAP)


class ContributionBody(TermsBody):
    cluster = Text(max_length=63, help_text="Name of the cluster that is lent.")


class ContributionAnswer(serializers.ModelSerializer[Contribution]):
    cluster: Any = serializers.CharField(source="cluster.name", read_only=True)
    domain = serializers.CharField(source="cluster.domain.slug", read_only=True)
    consumers: Any = serializers.SlugRelatedField(slug_field="slug", many=True, read_only=True)
    windows: Any = WindowBody(many=True)
    jurisdictions: Any = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Contribution
        fields = (
            "id",
            "cluster",
            "domain",
            "share_percent",
            "consumers",
            "trust",
            "jurisdictions",
            "price_per_cpu_hour",
            "price_per_gpu_hour",
            "starts_at",
            "ends_at",
            "notice_seconds",
            "windows",
            "timezone",
            "cap_cpu_millicores",
            "cap_memory_bytes",
            "cap_gpu_milli",
            "created_at",
        )
        read_only_fields = fields


class RegionBody(StrictSerializer):
    carbon = serializers.FloatField(
        min_value=0, max_value=10_000, required=False, allow_null=True, default=None, help_text="Grams of CO₂ a kWh."
    )
    round_trips = serializers.DictField(
        child=serializers.FloatField(min_value=0, max_value=60_000),
        default=dict,
        help_text="Milliseconds to other regions and back; each way is kept once, as it was said last.",
    )


class RegionAnswer(serializers.ModelSerializer[Region]):
    round_trips: Any = serializers.DictField(child=serializers.FloatField())

    class Meta:
        model = Region
        fields = ("name", "carbon", "round_trips")
        read_only_fields = fields


class FlavorAnswer(serializers.ModelSerializer[Flavor]):
    pool: Any = serializers.CharField(source="pool.name", read_only=True)
    match: Any = serializers.DictField()

    class Meta:
        model = Flavor
        fields = ("id", "name", "pool", "match", "position")
        read_only_fields = fields


class FlavorBody(StrictSerializer):
    pool = Text(max_length=63)
    name = Text(max_length=63)
    match = serializers.DictField(default=dict, help_text="labels: key → values; gpu_models: names.")
    position = Integer(min_value=0, max_value=10_000, default=0)


class FlavorChange(StrictSerializer):
    match = serializers.DictField(required=False)
    position = Integer(min_value=0, max_value=10_000, required=False)


class PoolBody(StrictSerializer):
    name = Text(max_length=63)
    description = Text(max_length=300, default="", allow_blank=True)
    query = serializers.DictField(
        default=dict, help_text="clusters, domains, labels, regions, gpu_models, trust; absent: all."
    )
    backfill = serializers.ChoiceField(
        choices=[mode.value for mode in Mode],
        default=Mode.EASY.value,
        help_text="For whom starts are reserved: nobody, the first that waits, or everyone that waits.",
    )
    priority_reach = serializers.ChoiceField(
        choices=[reach.value for reach in Reach],
        default=Reach.WITHIN.value,
        help_text="Among whose jobs priority is compared: those of each tenant, or of all before borrowing and shares.",
    )


class PoolChange(StrictSerializer):
    description = Text(max_length=300, required=False, allow_blank=True)
    query = serializers.DictField(required=False)
    backfill = serializers.ChoiceField(choices=[mode.value for mode in Mode], required=False)
    priority_reach = serializers.ChoiceField(choices=[reach.value for reach in Reach], required=False)


class PoolAnswer(serializers.ModelSerializer[Pool]):
    query: Any = serializers.DictField()
    flavors = FlavorAnswer(many=True, read_only=True)
    nodes = serializers.SerializerMethodField(help_text="How many nodes answer the query now.")

    def get_nodes(self, pool: Pool) -> int:
        """Counted once for all pools of the answer."""
        if not hasattr(self.root, "_members"):
            self.root._members = pool_members(timezone.now())
        found = self.root._members.get(pool.name)
        return len(found.nodes) if found is not None else 0

    class Meta:
        model = Pool
        fields = (
            "id", "name", "description", "query", "backfill", "priority_reach", "nodes", "flavors", "created_at",
        )  # fmt: skip
        read_only_fields = fields
