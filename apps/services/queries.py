"""Reads of services, limited to what the actor may see."""

from dataclasses import dataclass

from django.db.models import F, Q, QuerySet

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.fleet.models import Node
from apps.jobs.models import Placement

from . import policies
from .models import Replica, Revision, Rollout, Service

# Of a service: replicas that have ended, revisions and rollouts that its detail shows, the newest ones.
ENDED_SHOWN = 20
REVISIONS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class ServiceDetail:
    """A service with what belongs to it; each replica has its `node`, where it was placed."""

    service: Service
    replicas: list[Replica]
    revisions: list[Revision]
    rollouts: list[Rollout]


def list_services(actor: Actor) -> QuerySet[Service]:
    """Services with their tenant, current revision and rollout."""
    return policies.services.visible(actor).select_related("tenant", "owner", "rollout__revision", "stable")


def service_of(actor: Actor, service_id: int) -> Service:
    """One service. Raises NotFound."""
    found = list_services(actor).filter(pk=service_id).first()
    if found is None:
        raise NotFound(f"There is no service {service_id} that you can see.")
    return found


def detail_of(actor: Actor, service_id: int) -> ServiceDetail:
    """One service with its replicas, revisions and rollouts, the newest first."""
    service = service_of(actor, service_id)
    rows = Replica.objects.filter(service=service).select_related("job", "revision")
    live = list(rows.filter(ended_at=None))
    ended = list(rows.filter(ended_at__isnull=False)[:ENDED_SHOWN])
    nodes = _nodes([replica.job_id for replica in (*live, *ended)])
    for replica in (*live, *ended):
        replica.node = nodes.get(replica.job_id)  # type: ignore[attr-defined]
    rollouts = Rollout.objects.filter(service=service).select_related("revision")
    return ServiceDetail(
        service, live + ended, list(service.revisions.all()[:REVISIONS_SHOWN]), list(rollouts[:REVISIONS_SHOWN])
    )


def _nodes(jobs: list[int]) -> dict[int, Node]:
    """The node of the newest attempt of each job that was placed."""
    newest = Q(attempt__job__in=jobs, attempt__token=F("attempt__job__token"))
    found = Placement.objects.filter(newest).select_related("node", "attempt").order_by("pk")
    return {placement.attempt.job_id: placement.node for placement in found}
