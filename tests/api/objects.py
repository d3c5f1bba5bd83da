"""One object of every kind that belongs to the tenant `vision`, by the name that routes give to its key."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.execution.models import Artifact, Bundle, Checkpoint, LogChunk
from apps.fleet import commands as fleet
from apps.jobs import commands as jobs
from apps.jobs.models import Attempt, Grant, Job, Placement
from apps.notifications import commands as notifications
from apps.quotas.budgets import create_budget
from apps.scheduling.models import Decision
from apps.services.commands import deploy
from apps.tenants import commands as tenants
from apps.tenants import stored
from apps.tenants.models import Membership, Secret
from apps.workflows import commands as workflows
from apps.workflows.models import Approval, Backfill, Run
from tests.personas import GIB, PERSONAS, Objects, World, make_world
from tests.replay import Replay

SHA256 = "a" * 64


def make_job(world: World, name: str = "train") -> Job:
    """A pending job of the member in the tenant vision."""
    data = {"name": name, "tenant": "vision", "groups": [{"command": ["true"]}]}
    return jobs.submit(actor=world.actor("member"), tenant=world.vision, data=data)


def run_job(world: World, job: Job, node: Any, token: int = 1) -> Placement:
    """Give the job an attempt with a log and an artifact, as rows: no agent is there to make them."""
    now = timezone.now()
    amounts = {"cpu": 100, "memory": GIB // 8, "storage": GIB // 4}
    grant = Grant.objects.create(
        job=job,
        quota_node=world.vision_quota,
        flavor="cpu",
        amounts=amounts,
        created_at=now,
        lease_expires_at=now,
        released_at=now,
    )
    attempt = Attempt.objects.create(job=job, grant=grant, token=token, state="succeeded", created_at=now)
    placement = Placement.objects.create(
        attempt=attempt,
        node=node,
        cpu_millicores=100,
        memory_bytes=GIB // 8,
        storage_bytes=GIB // 4,
        state="succeeded",
        log_size=6,
        log_expected=6,
    )
    storages["logs"].save(f"test/{placement.pk}", ContentFile(b"hello\n"))
    LogChunk.objects.create(placement=placement, offset=0, length=6, path=f"test/{placement.pk}")
    storages["artifacts"].save(f"test/{placement.pk}", ContentFile(b"report"))
    Artifact.objects.create(
        placement=placement,
        name="out/report.html",
        path=f"test/{placement.pk}",
        size=6,
        sha256=SHA256,
        content_type="text/html",
    )
    storages["checkpoints"].save(f"test/{placement.pk}", ContentFile(b"state"))
    Checkpoint.objects.create(job=job, token=token, at=now, path=f"test/{placement.pk}", size=5, sha256=SHA256)
    Decision.objects.create(job=job, at=now, outcome="grant", flavor="cpu", nodes=[node.name])
    return placement


DEFINITION = {
    "schema": 1,
    "name": "etl",
    "schedule": "@daily",
    "tasks": [{"id": "check", "kind": "bash", "script": "true"}],
}


def make_run(world: World, name: str = "etl") -> Run:
    """A queued run of a workflow of the tenant vision."""
    actor = world.actor("member")
    pushed = workflows.push(actor=actor, tenant=world.vision, definition={**DEFINITION, "name": name})
    return workflows.trigger(actor=actor, workflow_id=pushed.workflow.pk)


def make_approval(run: Run) -> Approval:
    """An open question to the members of the tenant, as a row: the run has not begun."""
    now = timezone.now()
    return Approval.objects.create(
        tenant_id=run.tenant_id,
        task=run.tasks.get(),
        subject="Go on?",
        options=["approve", "reject"],
        roles=["member"],
        asked_at=now,
        expires_at=now + timedelta(days=1),
    )


def make_backfill(world: World, run: Run) -> Backfill:
    """A backfill of a run's workflow over two days of the past."""
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    actor = world.actor("member")
    return workflows.create_backfill(actor=actor, workflow_id=run.workflow_id, first=first, last=last).backfill


def make_objects(world: World) -> Objects:
    """Build one of everything; the keys are those of the routes (`job_id`, `slug`, …)."""
    node, _ = world.join("vision-node")
    job = make_job(world)
    placement = run_job(world, job, node)
    row, _ = fleet.create_join_token(actor=SYSTEM, cluster=world.cluster)
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name="key", value="hidden")
    stored.set_variable(actor=SYSTEM, tenant=world.vision, name="limit", value="5")
    stored.set_connection(actor=SYSTEM, tenant=world.vision, name="db", fields={"type": "postgres", "password": "p"})
    Bundle.objects.create(tenant=world.vision, sha256=SHA256, size=1)
    token, _ = tenants.create_token(actor=world.actor("member"), name="mine")
    run = make_run(world)
    member = world.actor("member")
    dataset = workflows.update_dataset(actor=member, tenant=world.vision, uri="s3://a/b").dataset
    webhook, _ = workflows.create_webhook(actor=member, tenant=world.vision, name="hook", workflow="etl")
    workflows.set_state(actor=member, workflow_id=run.workflow_id, key="cursor", value=1)
    workflows.set_state(actor=member, run_id=run.pk, key="cursor", value=1)
    destination, _ = notifications.create_destination(
        actor=SYSTEM, tenant=world.vision, name="oncall", channel="webhook", url="https://example.org/hook"
    )
    heard = notifications.subscribe(actor=member, destination_id=destination.pk, kinds=["run.failed"], workflow="etl")
    return {
        "destination_id": destination.pk,
        "subscription_id": heard.pk,
        "delivery_id": notifications.send_test(actor=member, destination_id=destination.pk).pk,
        "slug": "vision",
        "membership_id": Membership.objects.get(user=world.users["member"]).pk,
        "variable": "limit",
        "connection": "db",
        "name": Secret.objects.get().name,
        "token_id": token.pk,
        "join_token_id": row.pk,
        "cluster_id": world.cluster.pk,
        "domain_id": world.alpha.pk,
        "node_id": node.pk,
        "contribution_id": world.cluster.contributions.get().pk,
        "pool_id": world.pool.pk,
        "flavor_id": world.flavor.pk,
        "region": fleet.set_region(actor=SYSTEM, name="eu", carbon=300.0, round_trips={"us": 90.0}).name,
        "quota_id": world.vision_quota.pk,
        "budget_id": create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=5).pk,
        "event_id": Event.objects.filter(tenant_id=world.vision.pk).latest("id").pk,
        "job_id": job.pk,
        "workflow_id": run.workflow_id,
        "backfill_id": make_backfill(world, run).pk,
        "number": 1,
        "run_id": run.pk,
        "approval_id": make_approval(run).pk,
        "dataset_id": dataset.pk,
        "webhook_id": webhook.pk,
        "slot_pool_id": workflows.create_slot_pool(
            actor=SYSTEM, tenant=world.vision, name="warehouse", size=4
        ).pk,
        "service_id": deploy(
            actor=member, tenant=world.vision, data={"name": "web", "job": {"groups": [{"command": ["true"]}]}}
        ).service.pk,
        "key": "cursor",
        "artifact_id": placement_artifact(placement),
        "checkpoint_id": Checkpoint.objects.get(job=job).pk,
        "placement_id": placement.pk,
        "sha256": SHA256,
        "path": "out/report.html",
    }


def world_with_objects() -> World:
    """The world with one of everything, and a token for everybody."""
    world = make_world()
    world.objects = make_objects(world)
    for persona in PERSONAS:
        world.token(persona)
    return world


# The same, made once in a process and then put back as rows.
kept_objects = Replay(world_with_objects)


def placement_artifact(placement: Placement) -> int:
    """The id of the placement's one artifact."""
    return Artifact.objects.get(placement=placement).pk
