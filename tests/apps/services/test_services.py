"""Services on the database: deployed, rolled, scaled, replaced, stopped; the nodes are simulated."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.jobs import commands as jobs
from apps.jobs import subscribers
from apps.jobs.models import Job
from apps.services import advance, commands
from apps.services.advance import advance_services, next_due
from apps.services.models import Replica, Revision, Rollout, Service
from apps.services.subscribers import ROLLOUT_ENDED
from tests.personas import World
from tests.work import cycle, members, pump, report, simulated_node

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_empty")]


def service_data(command: str = "sleep 100000", **more: Any) -> dict[str, Any]:
    """A service as somebody deploys it."""
    group = {"command": command.split(), "resources": {"cpu": "100m", "memory": "64Mi"}}
    return {"name": "web", "job": {"groups": [group]}, "restart": {"delay": "1s", "max_delay": "10s"}, **more}


class Driver:
    """The loops, with a clock of their own."""

    def __init__(self, world: World) -> None:
        self.world, self.now = world, timezone.now()

    def deploy(self, *arguments: Any, persona: str = "member", **more: Any) -> commands.Deployed:
        data = service_data(*arguments, **more)
        return commands.deploy(actor=self.world.actor(persona), tenant=self.world.vision, data=data)

    def go(self, *pauses: float) -> None:
        """A pass of every loop after each pause."""
        for seconds in pauses or (0, 10, 0):
            self.now += timedelta(seconds=seconds)
            cycle()
            pump()
            advance_services(self.now)

    @property
    def service(self) -> Service:
        return Service.objects.select_related("rollout", "stable").get()

    def live(self) -> list[tuple[int, str]]:
        """(number of the revision, state of the job) of each replica that has not ended and is not being stopped."""
        rows = Replica.objects.filter(ended_at=None, stopping=False).select_related("revision", "job").order_by("id")
        return [(row.revision.number, row.job.state) for row in rows]


@pytest.fixture
def driver(world: World) -> Driver:
    simulated_node(world)
    return Driver(world)


def end(job: Job, code: int = 1) -> None:
    """The process of a replica ends."""
    report(members(job)[0], exit_code=code, reason="exited")


def verbs() -> list[str]:
    rows = Event.objects.filter(subject_type__in=("service", "rollout")).order_by("id")
    return list(rows.values_list("verb", flat=True))


def test_a_service_is_deployed_and_becomes_ready(driver: Driver) -> None:
    made = driver.deploy(replicas=2)
    assert made.changed and made.rollout.state == "rolling"
    driver.go()
    service = driver.service
    assert driver.live() == [(1, "running"), (1, "running")]
    assert (service.condition, service.ready, service.detail) == ("ready", 2, "2 of 2 replicas of revision 1 ready.")
    assert service.rollout is not None and service.rollout.state == "complete"
    assert service.stable == made.rollout.revision
    job = Job.objects.first()
    assert job is not None and job.origin == f"service:{service.pk}" and job.owner == driver.world.users["member"]
    assert job.spec["time_limit"] == 366 * 86400 and job.name == "web"
    assert verbs() == ["service.created", "service.deployed", "rollout.complete"]
    # At rest there is nothing to look at.
    driver.go(100)
    assert service.due_at is None or driver.service.due_at is None
    assert next_due(driver.now) is None


def test_the_same_again_changes_nothing(driver: Driver) -> None:
    first = driver.deploy(replicas=1)
    before = Event.objects.count()
    again = driver.deploy()
    assert not again.changed and again.rollout == first.rollout and Event.objects.count() == before
    scaled = driver.deploy(replicas=2)
    assert scaled.changed and scaled.rollout == first.rollout and Revision.objects.count() == 1


def test_a_replica_that_ends_is_replaced_with_growing_pauses(driver: Driver) -> None:
    driver.deploy(replicas=1)
    driver.go()
    for round_ in range(1, 4):
        end(Job.objects.get(state="running"))
        driver.now = timezone.now()
        driver.go(0)
        revision = Revision.objects.get()
        assert revision.failures == round_ and revision.retry_at is not None
        assert driver.live() == [], "it waits for its time"
        assert driver.service.due_at == revision.retry_at
        # Its time comes.
        Revision.objects.update(retry_at=timezone.now() - timedelta(seconds=1))
        Service.objects.update(due_at=timezone.now())
        driver.now = timezone.now()
        driver.go(0, 0)
        assert len(driver.live()) == 1
    assert driver.service.condition == "crash_loop"
    assert "3 times in a row" in driver.service.detail and "exit status 1" in driver.service.detail
    assert "service.crash_loop" in verbs()
    driver.go(70)
    assert driver.service.condition == "ready" and Revision.objects.get().failures == 0
    assert verbs()[-1] == "service.crash_loop_ended"


def test_a_replica_that_somebody_cancels_is_replaced_and_no_crash(driver: Driver) -> None:
    driver.deploy(replicas=1)
    driver.go()
    jobs.cancel(actor=SYSTEM, job_id=Job.objects.get().pk)
    driver.go(0, 0, 0)
    assert driver.live() == [(1, "running")] and Revision.objects.get().failures == 0


def test_a_second_revision_rolls_over_the_first(driver: Driver) -> None:
    driver.deploy(replicas=2)
    driver.go()
    second = driver.deploy("sleep 200000")
    assert second.rollout.revision.number == 2
    most = 0
    for _ in range(8):
        driver.go(3)
        states = [revision for revision, state in driver.live() if state == "running"]
        assert len(states) >= 2, "never below the floor"
        most = max(most, len(driver.live()))
    assert driver.live() == [(2, "running"), (2, "running")] and most == 3
    assert Rollout.objects.get(pk=second.rollout.pk).state == "complete"


def test_a_revision_that_crashes_fails_and_the_old_one_goes_on(driver: Driver) -> None:
    driver.deploy(replicas=2)
    driver.go()
    ended: list[int] = []
    ROLLOUT_ENDED.append(ended.append)
    try:
        bad = driver.deploy("false", rollout={"progress_deadline": "1m"})
        driver.go(*[5] * 15)
    finally:
        ROLLOUT_ENDED.remove(ended.append)
    rollout = Rollout.objects.get(pk=bad.rollout.pk)
    assert rollout.state == "failed" and ended == [rollout.pk]
    assert "Revision 2 made no progress for 1m" in rollout.detail and "Revision 1 goes on." in rollout.detail
    assert driver.live() == [(1, "running"), (1, "running")] and driver.service.condition == "ready"
    # Deployed again it is tried again; what is good can be rolled back to.
    assert driver.deploy("false", rollout={"progress_deadline": "1m"}).changed
    commands.rollback(actor=driver.world.actor("member"), service_id=driver.service.pk, revision=1)
    driver.go()
    assert driver.service.rollout.state == "complete" and driver.live() == [(1, "running")] * 2  # type: ignore[union-attr]
    states = list(Rollout.objects.order_by("id").values_list("state", flat=True))
    assert states == ["complete", "failed", "superseded", "complete"]


def test_it_is_scaled_stopped_started_and_removed(driver: Driver) -> None:
    driver.deploy(replicas=1)
    driver.go()
    actor, pk = driver.world.actor("member"), driver.service.pk
    commands.scale(actor=actor, service_id=pk, replicas=3)
    driver.go()
    assert len(driver.live()) == 3
    commands.scale(actor=actor, service_id=pk, replicas=1)
    driver.go()
    assert len(driver.live()) == 1 and Replica.objects.filter(ended_at=None).count() == 1
    with pytest.raises(Conflict, match="not stopped"):
        commands.remove(actor=actor, service_id=pk)
    commands.stop(actor=actor, service_id=pk)
    assert commands.stop(actor=actor, service_id=pk).state == "stopped"
    with pytest.raises(Conflict, match="is stopped"):
        commands.scale(actor=actor, service_id=pk, replicas=2)
    driver.go()
    assert driver.service.condition == "stopped" and not Job.objects.filter(ended_at=None).exists()
    assert driver.deploy().changed
    driver.go()
    assert driver.service.condition == "ready"
    commands.stop(actor=actor, service_id=pk)
    driver.go()
    commands.remove(actor=actor, service_id=pk)
    assert not Service.objects.exists() and Job.objects.exists()
    assert verbs()[-1] == "service.removed"


def test_what_cannot_start_waits_in_words_and_fails_in_time(driver: Driver) -> None:
    data = service_data(rollout={"progress_deadline": "1m"})
    data["job"]["groups"][0]["resources"]["cpu"] = "3"
    commands.deploy(actor=SYSTEM, tenant=driver.world.vision, data={**data, "replicas": 2})
    driver.go()
    assert "1 replica waiting: " in driver.service.detail and driver.service.ready == 1
    driver.go(70)
    assert driver.service.rollout.state == "failed"  # type: ignore[union-attr]
    assert "There is no revision before" in driver.service.rollout.detail  # type: ignore[union-attr]
    commands.scale(actor=SYSTEM, service_id=driver.service.pk, replicas=1)
    driver.go()
    assert driver.service.rollout.state == "complete", "it came up after all"  # type: ignore[union-attr]


def test_a_node_that_is_lost_makes_its_job_wait_and_the_replica_is_the_same(driver: Driver) -> None:
    driver.deploy(replicas=1)
    driver.go()
    job = Job.objects.get()
    report(members(job)[0], reason="lost")
    driver.now = timezone.now()
    advance_services(driver.now)
    assert driver.service.condition == "degraded"
    Job.objects.update(not_before=None)
    driver.go()
    assert driver.live() == [(1, "running")] and Job.objects.count() == 1
    assert driver.service.condition == "ready"


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"job": {"groups": [{"command": ["x"], "count": 2}]}}, "job", "one_replica"),
        ({"job": {"groups": [{"command": ["x"]}], "time_limit": "1h"}}, "job", "wrong_field"),
        ({"job": {"groups": [{"command": ["x"], "resources": {"cpu": "900"}}]}}, "job.groups[0].resources", None),
        ({"rollout": {"max_surge": 0}}, "rollout", "contradiction"),
        ({"replicas": -1}, "replicas", "out_of_range"),
        ({"name": "No Slug"}, "name", "bad_slug"),
        ({"copies": 2}, "copies", "unknown_field"),
    ],
)
def test_bad_input_is_refused_by_field(driver: Driver, change: dict[str, Any], field: str, code: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        driver.deploy(**change)
    assert refused.value.errors[0]["field"] == field
    assert code is None or refused.value.errors[0]["code"] == code
    assert not Service.objects.exists()


@pytest.mark.parametrize(("persona", "error"), [("auditor", Forbidden), ("stranger", NotFound)])
def test_strangers_and_auditors_may_not(driver: Driver, persona: str, error: type[DomainError]) -> None:
    driver.deploy()
    actor, pk = driver.world.actor(persona), driver.service.pk
    with pytest.raises(Forbidden):
        driver.deploy("sleep 5", persona=persona)
    for command, more in ((commands.scale, {"replicas": 2}), (commands.rollback, {"revision": 1}), (commands.stop, {})):
        with pytest.raises(error):
            command(actor=actor, service_id=pk, **more)  # type: ignore[operator]
    with pytest.raises(error):
        commands.remove(actor=actor, service_id=pk)


def test_jobs_of_services_wake_nobody_else_and_others_do_not_wake_them(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: dict[str, list[Any]] = {"run": [], "service": []}
    for kind, calls in woken.items():
        assert kind in subscribers.JOB_MOVED
        monkeypatch.setitem(subscribers.JOB_MOVED, kind, calls.append)
    subscribers.jobs_moved([(1, "run:7"), (2, ""), (3, "service:8"), (4, "run:9")])
    assert woken == {"run": [[1, 4]], "service": [[3]]}
    subscribers.jobs_moved([(2, "")])
    assert woken == {"run": [[1, 4]], "service": [[3]]}


def test_one_service_that_cannot_go_on_does_not_keep_others(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.deploy()
    driver.deploy(name="other")
    bad = Service.objects.get(name="web").pk
    start = advance._start

    def refuse(service: Service, *arguments: Any) -> None:
        if service.pk == bad:
            raise Conflict("no")
        start(service, *arguments)

    monkeypatch.setattr(advance, "_start", refuse)
    advance_services(timezone.now())
    assert [row.service.name for row in Replica.objects.select_related("service")] == ["other"]
