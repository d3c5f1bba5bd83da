"""The contract of every backend, and what the agents' one keeps when processes die."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.core.files.storage import storages
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.execution.commands import forget_checkpoints
from apps.execution.models import Artifact, Checkpoint
from apps.execution.queries import job_artifacts
from apps.fleet import commands as fleet
from apps.fleet.models import Node
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Attempt, Job
from apps.quotas import commands as quotas
from rmctl.agent.main import join
from tests.apps.execution.places import Place, Real, Simulated, eventually
from tests.personas import World, make_limits, make_world
from tests.work import fresh, members

FINAL = ("succeeded", "failed", "cancelled")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test runs in every place, except for what only real processes can show."""
    if "place" in metafunc.fixturenames:
        kinds = ["agent"] if "real" in metafunc.fixturenames else ["agent", "fake"]
        metafunc.parametrize("place", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[Place]:
    """One place for all tests of a kind: they look at their own jobs only. Rows are committed, as in production."""
    from apps.core import redis
    from apps.jobs import configuration

    with django_db_blocker.unblock():
        redis.client().flushdb()
        configuration._kept = None
        with ExitStack() as afterwards:
            afterwards.callback(redis.client().flushdb)
            # No id comes again: what this process keeps by ids it keeps for good, as it may in production.
            afterwards.callback(call_command, "flush", verbosity=0, interactive=False, reset_sequences=False)
            world = make_world()
            found: Place = Simulated(world) if request.param == "fake" else Real(world)
            afterwards.callback(found.close)
            found.world = world  # type: ignore[attr-defined]
            yield found
            assert drift() == []


@pytest.fixture
def real(place: Place) -> Real:
    """For what only real processes can show."""
    assert isinstance(place, Real)
    return place


def start(place: Any, script: str, **more: Any) -> Job:
    world: World = place.world
    group = {"script": script, "resources": {"memory": "64Mi"}, **more.pop("group", {})}
    return jobs.submit(actor=SYSTEM, tenant=world.vision, data={"groups": [group], **more})


def log_of(place: Place, job: Job) -> bytes:
    """The whole log, once it is complete."""
    (member,) = members(job)
    eventually(lambda: place.backend.logs(member.pk, 0, 1).complete, "the log to be complete")
    return place.backend.logs(member.pk, 0, 1 << 20).data


@pytest.mark.django_db
def test_every_kind_of_node_that_can_exist_has_a_backend() -> None:
    """Also what makes pytest-django set the database up for this module, whose tests commit."""
    from apps.execution.backends import BACKENDS
    from apps.fleet.models import Cluster

    assert set(Cluster.Kind.values) - {Cluster.Kind.KUBERNETES} == set(BACKENDS)


@pytest.mark.parametrize(
    ("script", "state", "code"), [("true", "succeeded", 0), ("false", "failed", 1), ("exit 3", "failed", 3)]
)
def test_a_job_runs_and_ends_as_its_command_does(place: Place, script: str, state: str, code: int) -> None:
    job = place.settle(start(place, script), *FINAL)

    assert (job.state, job.exit_code, job.end_reason) == (state, code, "exited")
    (member,) = members(job)
    assert member.started_at and member.ended_at and member.enforced


def test_what_runs_is_observed_and_what_ended_is_not(place: Place) -> None:
    job = place.settle(start(place, "sleep 60"), "running")
    key = (members(job)[0].pk, 1)
    assert key in place.backend.observe(place.node.pk)

    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    place.settle(job, "cancelled")

    assert key not in place.backend.observe(place.node.pk)


def test_cancelling_stops_what_runs(place: Place) -> None:
    job = place.settle(start(place, "sleep 60"), "running")

    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    job = place.settle(job, "cancelled")

    assert job.end_reason == "stopped"


def test_a_stopped_attempt_is_placed_again(place: Place) -> None:
    job = place.settle(start(place, "sleep 60"), "running")
    (member,) = members(job)

    for _ in range(3):
        place.backend.cancel([member.pk], "drained")
    eventually(lambda: place.settle(job, "pending", "granted", "running") and fresh(job).token == 2, "a new attempt")

    assert fresh(job).failures == 0
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    place.settle(job, "cancelled")


def test_submitting_again_and_again_runs_it_once(place: Place) -> None:
    job = start(place, "echo once")
    for _ in range(5):
        place.backend.submit([place.node.pk])
    place.settle(job, "running", *FINAL)
    for _ in range(5):
        place.backend.submit([place.node.pk])
    place.settle(job, "succeeded")
    place.backend.submit([place.node.pk])
    place.backend.cancel([members(job)[0].pk], "cancelled")

    assert log_of(place, job) == b"once\n"
    assert Attempt.objects.filter(job=job).count() == 1
    assert fresh(job).state == "succeeded"


def test_a_log_is_read_in_pieces_of_any_size(place: Place) -> None:
    job = place.settle(start(place, "echo 0123456789"), "succeeded")
    whole = log_of(place, job)
    (member,) = members(job)

    assert whole == b"0123456789\n"
    assert place.backend.logs(member.pk, 3, 4).data == b"3456"
    assert place.backend.logs(member.pk, 11, 4).data == b""
    assert b"".join(place.backend.logs(member.pk, n, 1).data for n in range(11)) == whole


def test_a_gang_runs_all_its_members(place: Place) -> None:
    job = place.settle(start(place, "echo member", group={"count": 3}), *FINAL)

    assert job.state == "succeeded"
    assert [(member.rank, member.state) for member in members(job)] == [(rank, "succeeded") for rank in range(3)]


def test_a_gang_with_a_failed_member_fails_as_a_whole(place: Place) -> None:
    data = [
        {"name": "bad", "script": "exit 3", "resources": {"memory": "64Mi"}},
        {"name": "good", "script": "sleep 60", "count": 2, "resources": {"memory": "64Mi"}},
    ]
    world: World = place.world  # type: ignore[attr-defined]
    job = jobs.submit(actor=SYSTEM, tenant=world.vision, data={"groups": data})

    job = place.settle(job, *FINAL)

    assert (job.state, job.exit_code) == ("failed", 3)
    assert {member.end_reason for member in members(job)[1:]} == {"stopped"}


def test_a_failed_job_is_tried_again(place: Place) -> None:
    retries = {"limit": 2, "delay": 0, "jitter": 0}
    job = place.settle(start(place, "exit 4", retries=retries), *FINAL)

    assert (job.state, job.failures, job.token) == ("failed", 3, 3)


# What only real processes can show.


def test_a_log_that_is_no_text_arrives_byte_for_byte(real: Real) -> None:
    script = "for n in 1 2 3; do printf '\\377\\000\\200 %s\\n' $n; done; head -c 300000 /dev/zero | tr '\\0' '\\303'"
    job = real.settle(start(real, script), *FINAL)

    expected = b"".join(b"\xff\x00\x80 %d\n" % number for number in (1, 2, 3)) + b"\xc3" * 300_000
    assert hashlib.sha256(log_of(real, job)).hexdigest() == hashlib.sha256(expected).hexdigest()


def test_results_and_artifacts_are_stored(real: Real) -> None:
    script = "mkdir $RM_ARTIFACTS/sub; head -c 100000 /dev/zero > $RM_ARTIFACTS/sub/data.bin"
    script += "; echo '{\"a\": [1, null]}' > $RM_RESULT"
    job = real.settle(start(real, script), *FINAL)

    assert (job.state, job.result) == ("succeeded", {"a": [1, None]})
    artifact = job_artifacts(SYSTEM, job.pk).get()
    assert (artifact.name, artifact.size) == ("sub/data.bin", 100_000)
    with storages["artifacts"].open(artifact.path) as file:
        assert hashlib.sha256(file.read()).hexdigest() == artifact.sha256


def test_secrets_and_inputs_reach_the_task_and_its_limits_are_told(real: Real) -> None:
    from apps.tenants import commands as tenants

    world: World = real.world  # type: ignore[attr-defined]
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name="key", value="s3cret")
    script = 'cat "$RM_INPUTS"; [ "$TOKEN" = s3cret ] && echo " given $TOKEN $RM_RANK/$RM_SIZE"'
    job = real.settle(start(real, script, group={"secrets": {"TOKEN": "key"}}, inputs={"a": 1}), *FINAL)

    assert log_of(real, job).split() == [b'{"a":1}', b"given", b"******", b"0/1"]
    assert {"memory", "cpu", "time"} <= members(job)[0].enforced.keys()


def test_a_time_limit_ends_the_task(real: Real) -> None:
    job = real.settle(start(real, "sleep 60", time_limit=1), *FINAL)

    assert (job.state, job.end_reason) == ("failed", "time_limit")


def test_tasks_run_on_while_the_portal_is_away_and_nothing_is_lost(real: Real) -> None:
    lasting = start(real, "echo before; sleep 3; echo after; echo 7 > $RM_RESULT")
    short = start(real, "sleep 0.5; echo short; echo kept > $RM_ARTIFACTS/file")
    for job in (lasting, short):
        real.settle(job, "running")

    real.kill_portal()
    pid = members(short)[0].pid
    assert pid is not None
    eventually(lambda: not psutil.pid_exists(pid), "the short task to end while nobody listens")
    real.start_portal()

    assert real.settle(short, *FINAL).state == "succeeded"
    lasting = real.settle(lasting, *FINAL)
    assert (lasting.state, lasting.result) == ("succeeded", 7)
    assert log_of(real, lasting) == b"before\nafter\n"
    assert log_of(real, short) == b"short\n"
    assert Artifact.objects.filter(placement__attempt__job=short).count() == 1
    assert {job.token for job in (fresh(lasting), fresh(short))} == {1}


def test_an_agent_that_is_killed_adopts_its_tasks(real: Real) -> None:
    lasting = start(real, "echo one; sleep 3; echo two; exit 5")
    short = start(real, "sleep 0.3; echo short")
    for job in (lasting, short):
        real.settle(job, "running")
    pid = members(short)[0].pid
    assert pid is not None

    real.kill_agent()
    eventually(lambda: not psutil.pid_exists(pid), "the short task to end without its agent")
    real.start_agent()

    lasting, short = real.settle(lasting, *FINAL), real.settle(short, *FINAL)
    assert (lasting.state, lasting.exit_code, short.state) == ("failed", 5, "succeeded")
    assert (log_of(real, lasting), log_of(real, short)) == (b"one\ntwo\n", b"short\n")
    assert (lasting.token, short.token) == (1, 1)


def test_the_process_of_an_attempt_that_was_given_up_is_ended(real: Real) -> None:
    job = real.settle(start(real, "sleep 60"), "running")
    (old,) = members(job)
    assert old.pid is not None and psutil.pid_exists(old.pid)

    with transaction.atomic():
        jobs.end_lost(actor=SYSTEM, placement_ids=[old.pk], detail="its lease ran out")
    eventually(lambda: fresh(job).token == 2 or real.settle(job, "granted", "running"), "the second attempt")

    eventually(lambda: not psutil.pid_exists(old.pid or 0), "the first attempt's process to end")
    assert real.settle(job, "running").token == 2
    old.refresh_from_db()
    assert old.state == "lost"
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    real.settle(job, "cancelled")


@pytest.fixture
def contested(real: Real) -> Iterator[World]:
    """The tenant has one core and cannot borrow; jobs of higher priority take it from others."""
    world: World = real.world  # type: ignore[attr-defined]
    queue = world.vision_quota.pk
    limits = [{**limit, "borrowing_limit": 0} for limit in make_limits(cpu=1000)]
    quotas.set_limits(actor=SYSTEM, node_id=queue, limits=limits)
    quotas.set_rules(actor=SYSTEM, node_id=queue, rules={"within_queue": "lower_priority", "minimum_run_seconds": 0})
    yield world
    quotas.set_rules(actor=SYSTEM, node_id=queue, rules={"within_queue": "never"})
    quotas.set_limits(actor=SYSTEM, node_id=queue, limits=make_limits())


CORE = {"resources": {"memory": "64Mi", "cpu": "1"}}
SAVES = """trap 'touch "$RM_CHECKPOINT"; exit 0' TERM; echo attempt $RM_ATTEMPT; while true; do sleep 0.05; done"""


def trapped(place: Place, job: Job) -> Job:
    """The job once its script has said something, so that what it traps is trapped."""
    job = place.settle(job, "running")
    eventually(lambda: place.backend.logs(members(job)[0].pk, 0, 1).data, "its first line")
    return job


def evict(real: Real, victim: Job) -> Job:
    """Submit a job for which the victim has to go; returns it when it has ended."""
    urgent = start(real, "true", group=CORE, priority=100)
    return real.settle(urgent, *FINAL)


def test_an_evicted_job_saves_within_its_notice_and_is_tried_again(real: Real, contested: World) -> None:
    job = trapped(real, start(real, SAVES, group=CORE, notice="20s"))
    (first,) = members(job)
    assert first.checkpoint_at is None
    asked = timezone.now()

    assert evict(real, job).state == "succeeded"

    first.refresh_from_db()
    assert (first.end_reason, first.state) == ("stopped", "cancelled")
    assert first.checkpoint_at is not None and first.ended_at is not None
    assert asked < first.checkpoint_at <= first.ended_at < asked + timedelta(seconds=15)
    event = Event.objects.get(verb="job.requeued", subject_id=job.pk)
    assert "since its last checkpoint. It waits again" in event.reason
    job = trapped(real, job)
    assert (job.token, job.failures, job.losses) == (2, 0, 0)
    assert real.backend.logs(members(job)[0].pk, 0, 100).data == b"attempt 2\n"
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    real.settle(job, "cancelled")


def test_a_checkpoint_is_known_while_its_task_runs(real: Real, contested: World) -> None:
    """The next beat brings it, and an eviction says what is lost since then."""
    job = trapped(real, start(real, 'touch "$RM_CHECKPOINT"; echo saved; sleep 60', group=CORE, notice="0s"))
    eventually(lambda: members(job)[0].checkpoint_at, "its checkpoint")
    at = members(job)[0].checkpoint_at

    evict(real, job)

    told = Event.objects.get(verb="job.preempted", subject_id=job.pk)
    assert told.facts["lost_since"] == "last checkpoint"
    assert Attempt.objects.get(job=job, token=1).placements.get().checkpoint_at == at
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    real.settle(job, "cancelled")


def test_an_evicted_job_that_does_not_listen_is_killed_and_may_fail(real: Real, contested: World) -> None:
    deaf = "trap '' TERM; echo deaf; while true; do sleep 0.05; done"
    job = trapped(real, start(real, deaf, group=CORE, notice="1s", on_preempt="fail"))
    asked = timezone.now()

    evict(real, job)

    job = fresh(job)
    (member,) = members(job)
    assert (job.state, job.token, member.exit_code) == ("failed", 1, 137)
    assert member.ended_at is not None and member.ended_at - asked >= timedelta(seconds=1)
    assert member.checkpoint_at is None and job.detail.endswith("since its start.")


# Counts up from what it finds, saves each number, and says where it began.
COUNTS = """mkdir -p "$RM_CHECKPOINT_DIR"; cd "$RM_CHECKPOINT_DIR"; n=$(cat n || echo 0); echo "from $n"
save() { echo $1 > ../n.new; mv ../n.new n; touch "$RM_CHECKPOINT"; }
trap 'save 1000; exit 0' TERM; [ $n = 0 ] && save 7; while true; do sleep 0.05; done"""


def test_an_evicted_job_goes_on_from_what_it_saved_within_its_notice(real: Real, contested: World) -> None:
    job = trapped(real, start(real, COUNTS, group=CORE, notice="20s"))

    assert evict(real, job).state == "succeeded"

    kept = newest(job)
    job = trapped(real, job)
    assert (kept.token, job.token) == (1, 2)
    assert b"from 1000\n" in real.backend.logs(members(job)[0].pk, 0, 1000).data
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    real.settle(job, "cancelled")
    assert forget_checkpoints(timezone.now()) >= 1
    assert not Checkpoint.objects.filter(job=job).exists() and not storages["checkpoints"].exists(kept.path)


def newest(job: Job) -> Checkpoint:
    """What the job saved last."""
    return Checkpoint.objects.filter(job=job).order_by("-token", "-at")[0]


def test_after_the_loss_of_its_node_a_job_goes_on_from_what_was_stored(real: Real) -> None:
    """The agent and the process are killed at once, and another node takes over with what the portal has."""
    job = trapped(real, start(real, COUNTS))
    eventually(lambda: Checkpoint.objects.filter(job=job).exists(), "its checkpoint to be stored")
    (old,) = members(job)
    eventually(lambda: members(job)[0].checkpoint_at, "the beat that tells it")
    real.kill_agent()
    for process in [psutil.Process(old.pid), *psutil.Process(old.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # The end of the first one may take others with it.
            process.kill()
    with second_node(real) as node:
        fleet.cordon_node(actor=SYSTEM, node_id=real.node.pk)
        try:
            with transaction.atomic():
                jobs.end_lost(actor=SYSTEM, placement_ids=[old.pk], detail="its node is lost")
            job = trapped(real, job)
            (new,) = members(job)
            assert (new.node_id, new.attempt.token) == (node.pk, 2)
            assert real.backend.logs(new.pk, 0, 1000).data.endswith(b"from 7\n")
            # The agent of the lost node comes back: nothing of the old attempt takes the place of what is there.
            real.start_agent()
            jobs.cancel(actor=SYSTEM, job_id=job.pk)
            real.settle(job, "cancelled")
            assert newest(job).token <= 2
        finally:
            fleet.uncordon_node(actor=SYSTEM, node_id=real.node.pk)


@contextmanager
def second_node(real: Real) -> Iterator[Node]:
    """Another node with an agent of its own, gone again afterwards."""
    world: World = real.world  # type: ignore[attr-defined]
    first = real.node, real.data, real.agent
    _, token = fleet.create_join_token(actor=SYSTEM, cluster=world.cluster)
    real.data = real.folder / "second"
    real.node = node = Node.objects.get(pk=join(real.url, token, "real-2", str(real.data)))
    try:
        real.start_agent()
        agent = real.agent
        real.node, real.data, real.agent = first
        yield node
    finally:
        assert agent is not None
        agent.terminate()
        agent.wait(10)
        fleet.drain_node(actor=SYSTEM, node_id=node.pk)
        fleet.remove_node(actor=SYSTEM, node_id=node.pk)


def test_a_job_starts_soon_after_its_grant(real: Real) -> None:
    """The hint reaches the agent by itself: without one, the next beat would be up to two seconds away."""
    real.settle(start(real, "true"), *FINAL)
    waits = []
    for _ in range(3):
        began = time.monotonic()
        real.settle(start(real, "true"), *FINAL)
        waits.append(time.monotonic() - began)

    assert min(waits) < 1.5
