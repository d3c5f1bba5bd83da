"""Tasks of workflows that deploy a service and wait for the end of its rollout as a row."""

from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.jobs.models import Job
from apps.services import commands as services
from apps.services.models import Replica, Rollout, Service
from apps.workflows import commands, moved
from apps.workflows.models import Task, Wait
from tests.apps.services.test_services import Driver, service_data
from tests.apps.workflows.driver import bash, definition, look, start, states
from tests.personas import World
from tests.work import simulated_node

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_empty")]


@pytest.fixture
def driver(world: World) -> Driver:
    simulated_node(world)
    return Driver(world)


def deploys(*arguments: str, spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    chosen = {name: fields.pop(name) for name in ("replicas", "wait", "timeout", "soft_fail") if name in fields}
    service = {"spec": {**service_data(*arguments), **(spec or {})}, **chosen}
    return {"id": "roll", "kind": "service", "service": service, **fields}


def roll(run: Any) -> Task:
    return Task.objects.get(run=run, name="roll")


def test_it_waits_without_a_job_until_the_rollout_is_complete(
    driver: Driver, django_capture_on_commit_callbacks: Any
) -> None:
    env = {"TAG": {"value": "v7"}, "SIZE": {"value": 3}}
    run = start(driver.world.vision, deploys(replicas=2, arguments=env), bash("after", "roll"))
    assert states(run) == {"roll": "deferred", "after": "waiting"}
    task = roll(run)
    assert task.job is None and task.detail.startswith("Service web is rolled out as revision 1. At the latest until 2")
    service = Service.objects.get()
    assert (service.replicas, service.owner_id) == (2, run.owner_id)
    assert Rollout.objects.get().created_by == f"run:{run.pk}"
    look(review=True)
    assert states(run)["roll"] == "deferred"
    with django_capture_on_commit_callbacks(execute=True):
        driver.go()
    assert Replica.objects.first().job.spec["groups"][0]["env"] == {"TAG": "v7", "SIZE": "3"}  # type: ignore[union-attr]
    # The end of the rollout tells of it; by the clock it would be looked at in half a minute.
    assert moved.take(100).waits == [task.pk]
    Wait.objects.update(due_at=timezone.now())
    look()
    assert states(run) == {"roll": "succeeded", "after": "queued"} and not Wait.objects.exists()
    assert roll(run).result == {"service": "web", "revision": 1, "state": "complete"}
    # The same again is there already.
    again = start(driver.world.vision, deploys(replicas=2, arguments=env))
    look()
    assert states(again) == {"roll": "succeeded"} and Rollout.objects.count() == 1


def test_a_rollout_that_fails_fails_the_task_in_its_words(driver: Driver) -> None:
    run = start(driver.world.vision, deploys("false", spec={"rollout": {"progress_deadline": "1m"}}))
    driver.go(*[10] * 8)
    look()
    assert states(run) == {"roll": "failed"}
    assert "made no progress for 1m" in roll(run).detail and "exit status 1" in roll(run).detail


def test_a_rollout_that_another_one_replaces_fails_the_task(driver: Driver) -> None:
    run = start(driver.world.vision, deploys())
    services.deploy(actor=SYSTEM, tenant=driver.world.vision, data=service_data("sleep 7"))
    look()
    assert states(run) == {"roll": "failed"} and roll(run).detail.endswith("was superseded.")


@pytest.mark.parametrize(("soft", "state"), [(False, "failed"), (True, "skipped")])
def test_its_time_may_be_over(driver: Driver, soft: bool, state: str) -> None:
    run = start(driver.world.vision, deploys(timeout="10m", soft_fail=soft))
    from tests.apps.workflows.test_waits import later

    later(600)
    look()
    assert states(run) == {"roll": state} and "still rolled out" in roll(run).detail


def test_without_wait_it_ends_at_once(driver: Driver) -> None:
    run = start(driver.world.vision, deploys(wait=False))
    look()
    assert states(run) == {"roll": "succeeded"} and roll(run).result["state"] == "rolling"
    assert not Job.objects.exists(), "the loop of services makes them"


def test_a_refused_deployment_fails_the_task_and_no_other(driver: Driver) -> None:
    run = start(driver.world.vision, deploys(arguments={"RM_JOB_ID": {"value": "x"}}), bash("other"))
    assert states(run) == {"roll": "failed", "other": "queued"}
    assert "RM_JOB_ID" in roll(run).detail and not Service.objects.exists()


def test_a_push_finds_what_can_never_start(driver: Driver) -> None:
    task = deploys()
    task["service"]["spec"]["job"]["groups"][0]["resources"]["cpu"] = "900"
    with pytest.raises(Invalid) as refused:
        commands.push(actor=SYSTEM, tenant=driver.world.vision, definition=definition(task))
    assert refused.value.errors[0]["field"] == "tasks[0].service.spec.job.groups[0].resources"
