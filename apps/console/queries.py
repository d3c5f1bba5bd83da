"""Compositions that only pages need: sums and counts over what the actor may see. Every row comes through a policy."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Count, OuterRef, QuerySet, Sum
from django.utils import timezone

from apps.core.actors import Actor
from apps.events.models import Event
from apps.fleet import policies as fleet_policies
from apps.fleet.models import Cluster, Gpu, Node
from apps.fleet.states import NodeState
from apps.fleet.telemetry import telemetry
from apps.jobs import policies as job_policies
from apps.jobs.models import Job
from apps.jobs.states import JOB_ACTIVE, JobState
from apps.scheduling.outlook import Outlook
from apps.scheduling.queries import Queued
from apps.tenants.models import Tenant
from apps.workflows import policies as workflow_policies
from apps.workflows.models import Run, Workflow
from engine.order import SHORTEST, Reach
from engine.reasons import GRAVITY, TITLES, Reason

HEAT_LEVELS = 9
# A fleet of at most this many nodes is shown as cards, a larger one as a map.
CARDS_MAX = 8
HEAT_MAX = 2000
# Waiting jobs read at a time, in their order, until a list is full.
QUEUE_SLICE = 1000


@dataclass(frozen=True, slots=True)
class Use:
    """Allocated of the capacity of nodes that are ready."""

    resource: str
    label: str
    used: int
    most: int


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many jobs are pending for one primary reason."""

    reason: str
    title: str
    count: int


def narrowed(rows: QuerySet[Any], tenant: Tenant | None) -> QuerySet[Any]:
    """The rows of the tenant that the person has chosen to look at, or all of them."""
    return rows if tenant is None else rows.filter(tenant=tenant)


def visible_jobs(actor: Actor, tenant: Tenant | None) -> QuerySet[Job]:
    """Jobs that the actor may see, narrowed to the chosen tenant."""
    return narrowed(job_policies.jobs.visible(actor), tenant)


def node_counts(actor: Actor) -> dict[str, int]:
    """Nodes by state, removed ones left out."""
    rows = fleet_policies.nodes.visible(actor).exclude(state=NodeState.REMOVED)
    return dict(rows.order_by().values_list("state").annotate(count=Count("pk")))


def fleet_use(actor: Actor) -> list[Use]:
    """Allocated and capacity of the ready nodes, by resource; cards only where there are any."""
    ready = fleet_policies.nodes.visible(actor).filter(state=NodeState.READY)
    sums = ready.aggregate(
        cpu=Sum("cpu_millicores", default=0),
        cpu_used=Sum("allocated_cpu_millicores", default=0),
        memory=Sum("memory_bytes", default=0),
        memory_used=Sum("allocated_memory_bytes", default=0),
    )
    cards = Gpu.objects.filter(node__in=ready.order_by().values("pk")).aggregate(
        count=Count("pk"), used=Sum("allocated_milli", default=0)
    )
    found = [
        Use("cpu", "CPU", sums["cpu_used"], sums["cpu"]),
        Use("memory", "Memory", sums["memory_used"], sums["memory"]),
    ]
    if cards["count"]:
        found.append(Use("gpu", "GPU", cards["used"], cards["count"] * 1000))
    return found


def job_counts(actor: Actor, tenant: Tenant | None) -> dict[str, int]:
    """Active jobs by state, from the partial index of active jobs."""
    rows = visible_jobs(actor, tenant).filter(state__in=sorted(JOB_ACTIVE))
    return dict(rows.order_by().values_list("state").annotate(count=Count("pk")))


def pending_reasons(actor: Actor, tenant: Tenant | None) -> list[ReasonCount]:
    """Pending jobs by primary reason, the gravest first."""
    rows = visible_jobs(actor, tenant).filter(state=JobState.PENDING)
    counts = dict(rows.order_by().values_list("reason").annotate(count=Count("pk")))
    gravity = {reason.value: rank for rank, reason in enumerate(GRAVITY)}
    return [
        ReasonCount(reason, TITLES[Reason(reason)], count)
        for reason, count in sorted(counts.items(), key=lambda item: -gravity.get(item[0], 0))
    ]


def ended_since(actor: Actor, tenant: Tenant | None, since: datetime) -> dict[str, int]:
    """Jobs that have ended since then, by state."""
    rows = visible_jobs(actor, tenant).filter(ended_at__gte=since)
    return dict(rows.order_by().values_list("state").annotate(count=Count("pk")))


def success_rate(actor: Actor, tenant: Tenant | None) -> tuple[float | None, dict[str, int]]:
    """Share of the jobs of the last 24 hours that succeeded, those that people cancelled left out."""
    counts = ended_since(actor, tenant, timezone.now() - timedelta(hours=24))
    good, bad = counts.get(JobState.SUCCEEDED, 0), counts.get(JobState.FAILED, 0)
    return (good / (good + bad) if good + bad else None), counts


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node with its latest sample."""

    node: Node
    sample: dict[str, Any]

    @property
    def cpu_percent(self) -> float:
        """Busy cpu; 0 without a sample."""
        return float(self.sample.get("cpu_percent", 0.0))

    @property
    def memory_used(self) -> int:
        """Used memory in bytes; 0 without a sample."""
        return int(self.sample.get("memory_used", 0))

    @property
    def memory_total(self) -> int:
        """Memory in bytes as the agent sees it, else as it was taken into the inventory."""
        return int(self.sample.get("memory_total", 0)) or self.node.memory_bytes

    @property
    def level(self) -> int:
        """Heat from 0 to 9: how busy its cpu is, or, where nothing is measured, how much of it is allocated."""
        allocated = 100 * self.node.allocated_cpu_millicores / max(1, self.node.cpu_millicores)
        percent = self.cpu_percent if self.sample else allocated
        return min(HEAT_LEVELS, -int(-percent // 11))

    @property
    def cards(self) -> list[Gpu]:
        """Its GPUs."""
        return list(self.node.gpus.all())

    @property
    def cards_used(self) -> int:
        """Thousandths of cards that are allocated."""
        return sum(card.allocated_milli for card in self.cards)

    @property
    def cards_most(self) -> int:
        """Thousandths of cards that there are."""
        return 1000 * len(self.cards)


def with_telemetry(nodes: Iterable[Node]) -> list[LiveNode]:
    """The nodes with their latest samples, read at once."""
    found = list(nodes)
    samples = telemetry([node.pk for node in found if node.state != NodeState.LOST])
    return [LiveNode(node, samples.get(node.pk, {})) for node in found]


def telemetry_topics(actor: Actor, clusters: Iterable[Cluster]) -> str:
    """The live topics of the samples that the actor may watch as they come: one for each cluster."""
    return " ".join(
        f"telemetry:{cluster.pk}"
        for cluster in clusters
        if fleet_policies.clusters.allows(actor, "observe", cluster)
    )


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """What the nodes of a cluster that are not removed have together."""

    nodes: int
    cpu_millicores: int
    memory_bytes: int


def cluster_sums(actor: Actor, cluster_ids: Iterable[int]) -> dict[int, ClusterSums]:
    """The nodes of each cluster that the actor may see, added up in one query."""
    rows = fleet_policies.nodes.visible(actor).filter(cluster_id__in=list(cluster_ids))
    sums = rows.exclude(state=NodeState.REMOVED).order_by().values_list("cluster_id")
    added = sums.annotate(Count("pk"), Sum("cpu_millicores"), Sum("memory_bytes"))
    return {cluster_id: ClusterSums(*values) for cluster_id, *values in added}


@dataclass(frozen=True, slots=True)
class HeatGroup:
    """The nodes of one cluster on the fleet map."""

    cluster: str
    nodes: list[LiveNode]


def fleet_map(actor: Actor) -> list[HeatGroup]:
    """Every node that is not removed, by cluster; at most HEAT_MAX."""
    shown = ("name", "state", "running", "cpu_millicores", "allocated_cpu_millicores", "memory_bytes", "cluster__name")
    rows = fleet_policies.nodes.visible(actor).exclude(state=NodeState.REMOVED)
    rows = rows.select_related("cluster").only(*shown).order_by("cluster__name", "pk")
    groups: dict[str, list[LiveNode]] = {}
    for live in with_telemetry(rows[:HEAT_MAX]):
        groups.setdefault(live.node.cluster.name, []).append(live)
    return [HeatGroup(cluster, nodes) for cluster, nodes in groups.items()]


def search_jobs(rows: QuerySet[Job], words: str) -> tuple[QuerySet[Job], bool]:
    """The job whose id the words are, else jobs whose name contains them; and whether no index serves to find them."""
    if words.isascii() and words.isdigit() and len(words) < 19:
        named = rows.filter(pk=int(words))
        if named.exists():
            return named, False
    return (rows.filter(name__icontains=words), True) if words else (rows, False)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A waiting job with its place in its tenant's queue, and its reserved and estimated start where there is one."""

    job: Job
    position: int | None
    reserved_at: datetime | None
    p50: datetime | None
    p90: datetime | None


def queue_rows(rows: QuerySet[Job], queued: Queued, limit: int) -> list[QueueRow]:
    """The first of these pending jobs in the order in which the scheduler looks at them.

    Those that it does not look at now, such as held ones, come after the others, by priority and age.
    """
    jobs: list[Job] = []
    for first in range(0, len(queued.order), QUEUE_SLICE):
        ahead = queued.order[first : first + QUEUE_SLICE]
        found = {job.pk: job for job in rows.filter(pk__in=ahead)}
        jobs += [found[pk] for pk in ahead if pk in found]
        if len(jobs) >= limit:
            break
    else:
        jobs += rows.exclude(pk__in=queued.order).order_by("-priority", "pk")[:limit]
    jobs = jobs[:limit]
    starts = queued.forecast.starts if queued.forecast is not None else {}

    def at(moment: float | None) -> datetime | None:
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    made = []
    for job in jobs:
        start = starts.get(job.pk)
        p50, p90 = (at(start.p50), at(start.p90)) if start is not None else (None, None)
        made.append(QueueRow(job, queued.positions.get(job.pk), queued.reserved.get(job.pk), p50, p90))
    return made


def order_rows(outlook: Outlook) -> list[tuple[str, float, str]]:
    """The terms of a job's order as (name, points, how it comes to be); the points add up to the last one."""
    if outlook.terms is None or outlook.run_time is None:
        return []
    shown = outlook.terms.as_dict()
    length = max(outlook.run_time.p50, SHORTEST)
    across, own = outlook.reach is Reach.ACROSS, "the job's own number"
    if outlook.named != shown["priority"]:
        own = f"the highest that its quota allows; the job names {outlook.named}"
    return [
        ("Priority", shown["priority"], own),
        ("Ageing", shown["ageing"], f"10 × log2(1 + {outlook.waited:.0f} s waited ÷ {length:.0f} s expected)"),
        ("Fair share", shown["fair_share"], f"−10 × {outlook.share:.2f} of the queue's own quota in use"),
        ("Total", shown["total"], "larger goes first" + " among jobs of the same priority" * across),
    ]


def reach_words(outlook: Outlook) -> str:
    """What priority does between tenants where it does anything; "" where it stays within the tenant."""
    if outlook.reach is Reach.WITHIN and not outlook.above and not outlook.below:
        return ""
    text = "Here priority goes before everything else, also between tenants"
    if outlook.reach is Reach.WITHIN:
        text = "In another pool priority goes before everything else, and this job counts as 0 there"
    jobs = f"{outlook.above} waiting job{'s' * (outlook.above != 1)} of other tenants go{'es' * (outlook.above == 1)}"
    return f"{text}: {jobs} first for a higher one, and it goes before {outlook.below} of theirs."


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant with its active jobs by state."""

    tenant: Tenant
    pending: int
    running: int


def tenant_rows(actor: Actor, tenants: list[Tenant]) -> list[TenantRow]:
    """Each tenant with what it has in flight, in one query for all."""
    rows = job_policies.jobs.visible(actor).filter(state__in=sorted(JOB_ACTIVE))
    counts: dict[int, dict[str, int]] = {}
    for tenant_id, state, count in rows.order_by().values_list("tenant_id", "state").annotate(count=Count("pk")):
        counts.setdefault(tenant_id, {})[state] = count
    return [
        TenantRow(
            tenant,
            pending=counts.get(tenant.pk, {}).get(JobState.PENDING, 0),
            running=sum(count for state, count in counts.get(tenant.pk, {}).items() if state != JobState.PENDING),
        )
        for tenant in tenants
    ]


def narrowed_events(rows: QuerySet[Event], tenant: Tenant | None) -> QuerySet[Event]:
    """The events of the chosen tenant, or all of them."""
    return rows if tenant is None else rows.filter(tenant_id=tenant.pk)


def recent_runs(actor: Actor, tenant: Tenant | None) -> QuerySet[Run]:
    """Runs that the actor may see, newest first."""
    rows = narrowed(workflow_policies.runs.visible(actor), tenant)
    return rows.select_related("workflow", "tenant", "owner", "version").defer("version__definition").order_by("-pk")


@dataclass(frozen=True, slots=True)
class Bar:
    """A run in the strip of a workflow's latest runs; height from 1 to 9 by how long it took."""

    run: Run
    height: int


def latest_runs(actor: Actor, workflows: Iterable[Workflow], count: int) -> dict[int, list[Bar]]:
    """The newest runs of each workflow, oldest of them first; their ids are read from the ends of an index."""
    newest = ArraySubquery(Run.objects.filter(workflow=OuterRef("pk")).order_by("-pk").values("pk")[:count])
    lists = Workflow.objects.filter(pk__in=[workflow.pk for workflow in workflows]).values_list(newest, flat=True)
    found: dict[int, list[Run]] = {}
    for run in workflow_policies.runs.visible(actor).filter(pk__in=list(chain.from_iterable(lists))).order_by("pk"):
        found.setdefault(run.workflow_id, []).append(run)
    return {pk: _bars(runs) for pk, runs in found.items()}


def _bars(runs: list[Run]) -> list[Bar]:
    now = timezone.now()
    seconds = [((run.ended_at or now) - run.started_at).total_seconds() if run.started_at else 0.0 for run in runs]
    longest = max(seconds, default=0.0) or 1.0
    return [Bar(run, max(1, round(9 * took / longest))) for run, took in zip(runs, seconds, strict=True)]
