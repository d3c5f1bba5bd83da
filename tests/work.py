"""Work for the tests: simulated nodes, jobs, and the steps that the loops make in production."""

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.events.stamp import move_stamp
from apps.execution.backends import BACKENDS, FakeBackend
from apps.execution.commands import take_reports
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster, Gpu, Node
from apps.jobs import commands as jobs
from apps.jobs.models import Attempt, Job, Placement
from apps.scheduling import tasks
from apps.tenants.models import Domain, Tenant
from rmctl.agent.protocol import Report
from tests.personas import World

GIB = 2**30
FAKE = BACKENDS[Cluster.Kind.FAKE]
assert isinstance(FAKE, FakeBackend)


def simulated_cluster(world: World, name: str = "alpha-fake", domain: Domain | None = None, **terms: Any) -> Cluster:
    """A cluster of simulated nodes, lent under these terms."""
    cluster = fleet.create_cluster(actor=SYSTEM, domain=domain or world.alpha, name=name, kind="fake", region="eu")
    fleet.create_contribution(actor=SYSTEM, cluster=cluster, **terms)
    return cluster


def simulated_node(
    world: World, name: str = "sim-1", *, cpu: int = 4000, memory: int = 16 * GIB, cards: int = 0,
    cluster: Cluster | None = None, **columns: Any,
) -> Node:
    """A node of the fake backend; `cards` GPUs of model A100."""
    if cluster is None:
        cluster = Cluster.objects.filter(name="alpha-fake").first() or simulated_cluster(world)
    node = Node.objects.create(
        cluster=cluster, name=name, cpu_millicores=cpu, memory_bytes=memory, storage_bytes=100 * GIB, **columns
    )
    Gpu.objects.bulk_create(
        Gpu(node=node, index=index, model="A100", memory_bytes=40 * GIB) for index in range(cards)
    )
    move_stamp()
    return node


def job_data(
    command: str = "sleep 60", *, count: int = 1, cpu: str = "1", memory: str = "1Gi", gpu: Any = None, **more: Any
) -> dict[str, Any]:
    """A job as a person submits it; `more` goes beside the groups."""
    resources = {"cpu": cpu, "memory": memory, **({"gpu": gpu} if gpu else {})}
    return {"groups": [{"command": shlex.split(command), "count": count, "resources": resources}], **more}


def submit(world: World, command: str = "sleep 60", tenant: Tenant | None = None, **more: Any) -> Job:
    """Submit a job as the system for a tenant (vision by default)."""
    return jobs.submit(actor=SYSTEM, tenant=tenant or world.vision, data=job_data(command, **more))


def cycle() -> bool:
    """One pass of the scheduling loop, as if people had not heard of reserved starts for a while."""
    tasks._told = float("-inf")
    return tasks.schedule()


def pump(seconds: float = 0.0, now: datetime | None = None) -> int:
    """Let the simulated nodes do what is due so many seconds from now."""
    assert isinstance(FAKE, FakeBackend)
    return FAKE.pump((now or timezone.now()) + timedelta(seconds=seconds))


def fresh(job: Job) -> Job:
    """The job as it is stored now."""
    return Job.objects.get(pk=job.pk)


def granted(world: World, command: str = "sleep 60", **more: Any) -> Job:
    """A job that has got its capacity and was not started yet."""
    job = submit(world, command, **more)
    cycle()
    job = fresh(job)
    assert job.state == "granted", (job.state, job.reason, job.detail)
    return job


def members(job: Job) -> list[Placement]:
    """The members of the newest attempt, in the order of their ranks."""
    attempt = Attempt.objects.filter(job=job).latest("token")
    return list(attempt.placements.select_related("attempt", "node").order_by("group", "rank"))


def report(placement: Placement, kind: str = "ended", *, node: int | None = None, **more: Any) -> list[tuple[int, int]]:
    """One report of the placement's node; returns what was refused."""
    token = more.pop("token", placement.attempt.token)
    if kind == "ended" and not more:
        more = {"exit_code": 0, "reason": "exited"}
    item = Report(placement.pk, token, kind, timezone.now().timestamp(), **more)  # type: ignore[arg-type]
    return send(node or placement.node_id, [item])


def send(node: int, reports: Sequence[Report]) -> list[tuple[int, int]]:
    """A batch of reports of one node; returns what was refused."""
    return take_reports(actor=Actor(label="agent:test", node_id=node), node_id=node, reports=reports)
