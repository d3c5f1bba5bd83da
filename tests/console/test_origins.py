"""What made a job: the list narrows by it, and a job's page leads there only as long as it is there."""

import re

from apps.jobs.models import Job
from apps.services import commands as services
from apps.services.models import Service
from tests.personas import World
from tests.work import submit

from .conftest import People, fragment

SPEC = {"name": "web", "replicas": 1, "job": {"groups": [{"command": ["sleep", "100"], "resources": {"cpu": "100m"}}]}}


def listed(people: People, origin: str) -> set[int]:
    """Ids of the jobs in the list."""
    page = fragment(people.member, f"/jobs/?origin={origin}", "job-list").content.decode()
    return {int(found) for found in re.findall(r'id="job-(\d+)"', page)}


def made_by(world: World, origin: str) -> int:
    job = submit(world)
    Job.objects.filter(pk=job.pk).update(origin=origin)
    return job.pk


def test_tasks_of_workflows_and_replicas_of_services_are_different_origins(world: World, people: People) -> None:
    person, task, replica = (made_by(world, origin) for origin in ("", "run:7", "service:3"))
    assert listed(people, "") == {person, task, replica}
    assert listed(people, "people") == {person}
    assert listed(people, "workflows") == {task}
    assert listed(people, "services") == {replica}
    assert people.member.get("/jobs/?origin=ghosts").status_code == 400


def test_a_replica_leads_to_its_service_until_that_is_removed(world: World, people: People) -> None:
    actor = world.actor("member")
    service = services.deploy(actor=actor, tenant=world.vision, data=SPEC).service
    job = made_by(world, f"service:{service.pk}")
    address = f'href="/services/{service.pk}/"'
    assert address in people.member.get(f"/jobs/{job}/").content.decode()
    services.stop(actor=actor, service_id=service.pk)
    services.remove(actor=actor, service_id=service.pk)
    assert not Service.objects.exists()
    page = people.member.get(f"/jobs/{job}/").content.decode()
    assert address not in page and "replica of a service that was removed" in page
