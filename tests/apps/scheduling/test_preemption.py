"""Evictions through the scheduling loop, on simulated nodes: who goes, how, for whom, and what comes after."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.execution.commands import intake
from apps.execution.dispatch import difference
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Attempt, Job
from apps.quotas import commands as quotas
from apps.quotas.ledger import decay
from apps.quotas.models import QuotaUsage
from apps.quotas.queries import load_tree
from apps.scheduling.models import Decision
from apps.scheduling.world import load_world, policy_named, simulated
from rmctl.agent.protocol import Checkpoint
from tests.personas import World, make_limits
from tests.work import cycle, fresh, granted, members, pump, report, simulated_node, submit


@pytest.fixture(autouse=True)
def exact_ledger(world: World) -> Any:
    yield
    assert drift() == []


@pytest.fixture
def halves(world: World) -> World:
    """A node of 4 cpu, half of it the quota of each tenant; vision may take back what is its own."""
    simulated_node(world, cpu=4000)
    for leaf in (world.vision_quota, world.speech_quota):
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=make_limits(cpu=2000))
        rules = {"reclaim": "any", "within_queue": "lower_priority", "minimum_run_seconds": 0}
        quotas.set_rules(actor=SYSTEM, node_id=leaf.pk, rules=rules)
    return world


def running(world: World, **more: Any) -> Job:
    job = granted(world, **more)
    pump()
    assert fresh(job).state == "running"
    return fresh(job)


def test_quota_is_taken_back_from_who_borrows_it(halves: World) -> None:
    theirs = [running(halves, cpu="2", tenant=halves.speech) for _ in range(2)]
    mine = submit(halves, cpu="2")

    cycle()

    mine = fresh(mine)
    assert (mine.state, mine.reason) == ("pending", "waiting_for_preemption")
    assert mine.detail == "The room is kept for it; it waits for 1 job to stop."
    # The newer one goes: it has lost the least.
    attempt = Attempt.objects.get(job=theirs[1])
    assert (attempt.stop_reason, attempt.preempted_by_id, attempt.preempted_cause) == ("preempted", mine.pk, "reclaim")
    assert not Attempt.objects.get(job=theirs[0]).stop_reason
    event = Event.objects.get(verb="job.preempted")
    # Neither is told who the other is.
    assert event.subject_id == theirs[1].pk and "by" not in event.facts and event.facts["notice"] == 10
    assert mine.tried[-1]["victims"] == [{"job": None, "cause": "reclaim"}]
    why = "Evicted for a job of another tenant, which takes back quota that is its tenant's own. "
    assert event.reason.startswith(why + "It loses its work since its start, ")
    assert event.reason.endswith(" s ago, unless it writes a checkpoint within 10 s.")
    assert Decision.objects.get(outcome="preempt").job_id == mine.pk

    # Another cycle asks nobody else, and the room is for the one that waits.
    cheeky = submit(halves, cpu="1", tenant=halves.speech)
    cycle()
    assert Event.objects.filter(verb="job.preempted").count() == 1
    pump()
    evicted = fresh(theirs[1])
    assert (evicted.state, evicted.losses, evicted.failures) == ("pending", 0, 0)
    assert evicted.submitted_at == theirs[1].submitted_at
    assert "waits again with its old place in the queue" in evicted.detail
    cycle()
    assert fresh(mine).state == "granted"
    assert fresh(cheeky).state == "pending" and fresh(evicted).state == "pending"


def ran(job: Job, seconds: float) -> None:
    """Let it have started so long ago."""
    at = timezone.now() - timedelta(seconds=seconds)
    Attempt.objects.filter(job=job).update(started_at=at)
    Attempt.objects.get(job=job).placements.update(started_at=at)


def saved(job: Job, seconds: float, rank: int = 0) -> None:
    """A member says that it wrote a checkpoint so long ago."""
    member = members(job)[rank]
    at = (timezone.now() - timedelta(seconds=seconds)).timestamp()
    intake.checkpoints([(member.node_id, Checkpoint(member.pk, member.attempt.token, at))])


def test_the_one_that_wrote_a_checkpoint_goes_as_it_loses_less(halves: World) -> None:
    old, new = (running(halves, cpu="2", tenant=halves.speech) for _ in range(2))
    ran(old, 7200)
    ran(new, 300)
    saved(old, 12)
    mine = submit(halves, cpu="2")

    cycle()

    assert Attempt.objects.get(job=old).preempted_by_id == mine.pk
    assert not Attempt.objects.get(job=new).stop_reason
    event = Event.objects.get(verb="job.preempted")
    assert "It loses its work since its last checkpoint, 12 s ago" in event.reason
    assert event.facts["lost_seconds"] == pytest.approx(12, abs=1) and event.facts["lost_since"] == "last checkpoint"
    pump()
    assert re.search(r"Lost: the work of 1\d s since its last checkpoint\.", fresh(old).detail)


def test_a_checkpoint_within_the_notice_makes_the_loss_smaller(halves: World) -> None:
    running(halves, cpu="2", tenant=halves.speech)
    victim = running(halves, cpu="2", tenant=halves.speech)
    ran(victim, 600)
    Attempt.objects.exclude(job=victim).update(started_at=timezone.now() - timedelta(hours=5))
    submit(halves, cpu="2")
    cycle()
    assert Event.objects.get(verb="job.preempted").facts["lost_seconds"] == pytest.approx(600, abs=5)

    (member,) = members(victim)
    report(member, reason="stopped", exit_code=0, checkpoint_at=timezone.now().timestamp())

    assert re.search(r"Lost: the work of 0\.\d s since its last checkpoint\. It waits again", fresh(victim).detail)


def test_a_gang_counts_from_the_oldest_checkpoint_of_those_that_write_any(halves: World) -> None:
    gang = running(halves, cpu="1", count=2, tenant=halves.speech)
    other = running(halves, cpu="2", tenant=halves.speech)
    ran(gang, 3600)
    ran(other, 60)
    saved(gang, 100, rank=0)
    saved(gang, 5, rank=1)
    submit(halves, cpu="2")
    cycle()
    # 100 s would be lost of the gang, 60 s of the other.
    assert Attempt.objects.get(job=other).stop_reason and not Attempt.objects.get(job=gang).stop_reason


def test_a_simulation_evicts_the_one_that_the_loop_would(halves: World) -> None:
    old, new = (running(halves, cpu="2", tenant=halves.speech) for _ in range(2))
    saved(old, 0)
    mine = submit(halves, cpu="2")
    now = timezone.now()
    with transaction.atomic():
        world = load_world(now, run_time=1.0)
        done = simulated(world, policy_named(world.configuration, None), until=now.timestamp() + 1)
    assert done.records[old.pk].evicted_for == [mine.pk] and not done.records[new.pk].evicted_for
    cycle()
    assert Attempt.objects.get(stop_reason="preempted").job_id == old.pk


def test_who_was_evicted_does_not_evict_back(halves: World) -> None:
    theirs = [running(halves, cpu="2", tenant=halves.speech) for _ in range(2)]
    mine = submit(halves, cpu="2")
    cycle()
    pump()
    cycle()
    assert fresh(mine).state == "granted"

    Job.objects.filter(pk=theirs[1].pk).update(priority=50)
    quotas.set_limits(actor=SYSTEM, node_id=halves.speech_quota.pk, limits=make_limits(cpu=4000))
    quotas.set_limits(actor=SYSTEM, node_id=halves.vision_quota.pk, limits=make_limits(cpu=0))
    cycle()
    assert Attempt.objects.get(job=mine).stop_reason == ""
    # Another job of the same tenant is free to.
    fresh_one = submit(halves, cpu="2", tenant=halves.speech, priority=60)
    cycle()
    assert Attempt.objects.get(job=mine).preempted_by_id == fresh_one.pk


def test_a_job_that_wants_to_fail_fails(halves: World) -> None:
    running(halves, cpu="2", tenant=halves.speech)
    theirs = running(halves, cpu="2", tenant=halves.speech, on_preempt="fail")
    mine = submit(halves, cpu="2")
    cycle()
    pump()
    theirs = fresh(theirs)
    assert theirs.state == "failed"
    said = r"Evicted for a job of another tenant\. Lost: the work of \d\.\d s since its start\."
    assert re.fullmatch(said, theirs.detail) and fresh(mine).state == "pending"


def test_only_who_may_see_the_job_is_told_for_which_one_another_was_evicted(halves: World, api: Any) -> None:
    running(halves, cpu="2", tenant=halves.speech)
    theirs = running(halves, cpu="2", tenant=halves.speech)
    mine = submit(halves, cpu="2")
    cycle()
    for persona, job in (("stranger", None), ("operator", mine.pk)):
        (attempt,) = api.as_(persona).get(f"jobs/{theirs.pk}/attempts").json()["results"]
        assert attempt["evicted_for"] == job


def test_the_process_has_the_notice_that_the_job_asked_for(halves: World) -> None:
    running(halves, cpu="2", tenant=halves.speech)
    theirs = running(halves, cpu="2", tenant=halves.speech, notice="45s")
    submit(halves, cpu="2")
    cycle()
    (member,) = members(theirs)
    [stop] = difference(member.node_id, 0, {(placed.pk, 1) for placed in members(theirs)}).message.stop
    assert (stop.reason, stop.grace_seconds) == ("preempted", 45.0)


def test_nobody_goes_before_the_minimum_run_time(halves: World) -> None:
    for _ in range(2):
        running(halves, cpu="2", tenant=halves.speech)
    quotas.set_rules(actor=SYSTEM, node_id=halves.speech_quota.pk, rules={"minimum_run_seconds": 3600})
    mine = submit(halves, cpu="2")
    cycle()
    assert fresh(mine).reason == "waiting_for_quota"
    Attempt.objects.update(started_at=timezone.now() - timedelta(hours=2))
    cycle()
    assert fresh(mine).reason == "waiting_for_preemption"


def test_by_default_nobody_is_evicted(world: World) -> None:
    simulated_node(world, cpu=2000)
    granted(world, cpu="2")
    high = submit(world, cpu="2", priority=100)
    cycle()
    assert fresh(high).reason == "waiting_for_capacity"


def test_a_full_node_is_a_reason_to_evict_in_the_own_queue(world: World) -> None:
    """Quota would be there, but not the node: a job of lower priority goes."""
    simulated_node(world, cpu=2000)
    quotas.set_rules(
        actor=SYSTEM,
        node_id=world.vision_quota.pk,
        rules={"within_queue": "lower_priority", "minimum_run_seconds": 0},
    )
    low = running(world, cpu="2")
    high = submit(world, cpu="2", priority=100)
    cycle()
    assert Attempt.objects.get(job=low).preempted_by_id == high.pk
    event = Event.objects.get(verb="job.preempted")
    assert event.facts["by"] == high.pk and event.reason.startswith(f"Evicted for job {high.pk}, which goes before it")
    assert fresh(high).tried[-1]["victims"] == [{"job": low.pk, "cause": "in_queue"}]
    pump()
    assert fresh(low).detail.startswith(f"Evicted for job {high.pk}. ")
    cycle()
    assert fresh(high).state == "granted"


def test_a_victim_that_has_ended_meanwhile_is_left_alone(halves: World) -> None:
    done = granted(halves, "true", tenant=halves.speech)
    mine = submit(halves)
    pump()
    assert fresh(done).state == "succeeded"
    assert jobs.preempt([jobs.Evicted(done.pk, mine.pk, "reclaim")], timezone.now()) == []
    assert not Event.objects.filter(verb="job.preempted").exists()


def test_past_use_decays_with_the_half_life_and_counts_in_shares(halves: World) -> None:
    granted(halves, cpu="2")
    decay()
    usage = QuotaUsage.objects.get(node=halves.vision_quota, resource="cpu")
    assert usage.average == 0
    half_life = timedelta(seconds=settings.QUOTA_HALF_LIFE_SECONDS)
    QuotaUsage.objects.update(averaged_at=timezone.now() - half_life)
    decay()
    usage.refresh_from_db()
    assert usage.average == pytest.approx(1000, rel=0.01)
    tree = load_tree()
    assert tree.past(halves.vision_quota.pk, ("cpu", "cpu")) == pytest.approx(1000, rel=0.01)
    assert tree.standing(halves.vision_quota.pk).unweighted > tree.standing(halves.speech_quota.pk).unweighted
