"""How attempts end, whoever reports what and in which order."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, NotFound
from apps.events.models import Event
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Attempt, Grant, Job
from apps.jobs.states import JOB_EDGES, JobState
from engine.retry import LOSS_LIMIT
from rmctl.agent.protocol import Report
from tests.personas import World
from tests.work import cycle, fresh, granted, members, report, send, simulated_node, submit

NOW = timezone.now().timestamp()


@pytest.fixture(autouse=True)
def exact_ledger(world: World) -> Any:
    """One node, and after every test sums that are exact."""
    node = simulated_node(world)
    yield node
    assert drift() == []


def ends(job: Job) -> tuple[str, str, int | None]:
    job = fresh(job)
    return job.state, job.end_reason, job.exit_code


def verbs(job: Job) -> list[str]:
    rows = Event.objects.filter(subject_type="job", subject_id=job.pk).order_by("id")
    return list(rows.values_list("verb", flat=True))


def test_a_job_starts_ends_and_gives_back_what_it_held(world: World) -> None:
    job = granted(world)
    (member,) = members(job)

    assert report(member, "started", pid=7, enforced={"cpu": "cgroup"}) == []
    assert fresh(job).state == "running"
    assert report(member, result={"answer": 42}, exit_code=0, reason="exited", log_size=5) == []

    job = fresh(job)
    assert (job.state, job.result, job.exit_code, job.failures) == ("succeeded", {"answer": 42}, 0, 0)
    assert job.started_at and job.ended_at
    (member,) = members(job)
    assert (member.enforced, member.log_expected, member.pid) == ({"cpu": "cgroup"}, 5, 7)
    assert Grant.objects.get().released_at is not None
    assert verbs(job) == ["job.submitted", "job.granted", "job.started", "job.succeeded"]


def test_start_and_end_in_one_batch_keep_the_time_of_the_start_and_its_limits(world: World) -> None:
    job = granted(world)
    (member,) = members(job)
    began = NOW - 60

    refused = send(
        member.node_id,
        [
            Report(member.pk, 1, "started", began, pid=9, enforced={"memory": "cgroup"}),
            Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited"),
        ],
    )

    assert refused == []
    job, (member,) = fresh(job), members(job)
    assert job.state == "succeeded"
    assert job.started_at and job.started_at.timestamp() == pytest.approx(began)
    assert member.enforced == {"memory": "cgroup"}


def test_the_same_report_twice_in_one_batch_counts_once(world: World) -> None:
    job = granted(world)
    (member,) = members(job)
    start = Report(member.pk, 1, "started", NOW)
    end = Report(member.pk, 1, "ended", NOW, exit_code=3, reason="exited")

    assert send(member.node_id, [start, start]) == []
    assert send(member.node_id, [end, end]) == []

    assert ends(job) == ("failed", "exited", 3)
    assert fresh(job).failures == 1


def test_reports_that_come_again_after_the_end_are_accepted_and_change_nothing(world: World) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")
    report(member)
    before = (fresh(job).ended_at, verbs(job))

    assert report(member) == []
    assert report(member, "started") == []  # Refused, the agent would forget it with the rest of its log.

    assert (fresh(job).ended_at, verbs(job)) == before


def test_a_report_with_an_old_token_is_refused(world: World) -> None:
    job = granted(world)
    (old,) = members(job)
    report(old, "started")
    jobs.end_lost(actor=SYSTEM, placement_ids=[old.pk], detail="")
    cycle()
    (new,) = members(job)
    assert (old.attempt.token, new.attempt.token) == (1, 2)

    assert report(old, exit_code=0, reason="exited") == [(old.pk, 1)]
    assert report(old, "started") == [(old.pk, 1)]
    assert report(new, token=1, reason="exited", exit_code=0) == [(new.pk, 1)]
    assert report(new, token=3, reason="exited", exit_code=0) == [(new.pk, 3)]

    assert fresh(job).state == "granted"


def test_a_node_reports_only_of_its_own_members(world: World) -> None:
    other = simulated_node(world, "sim-2")
    job = granted(world)
    (member,) = members(job)
    foreign = other.pk if member.node_id != other.pk else other.pk - 1

    assert report(member, "started", node=foreign) == [(member.pk, 1)]
    assert report(member, node=foreign) == [(member.pk, 1)]

    assert fresh(job).state == "granted"


def test_a_member_that_never_was_is_refused(world: World) -> None:
    node = simulated_node(world, "sim-2")

    assert send(node.pk, [Report(10**6, 1, "ended", NOW, exit_code=0), Report(10**6, 1, "started", NOW)]) == [
        (10**6, 1)
    ]


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"reason": "exited", "exit_code": 0}, ("succeeded", "exited", 0)),
        ({"reason": "exited", "exit_code": 2}, ("failed", "exited", 2)),
        ({"reason": "exited", "signal": 9}, ("failed", "exited", 137)),
        ({"reason": "exited"}, ("failed", "exited", None)),
        ({"reason": "time_limit", "exit_code": 143}, ("failed", "time_limit", 143)),
        ({"reason": "memory_limit", "exit_code": 137}, ("failed", "memory_limit", 137)),
        ({"reason": "storage_limit"}, ("failed", "storage_limit", None)),
        ({"reason": "pids_limit"}, ("failed", "pids_limit", None)),
        ({"reason": "result_invalid", "exit_code": 0}, ("failed", "result_invalid", 0)),
    ],
)
def test_every_end_reason_leads_to_its_state(world: World, values: dict[str, Any], end: tuple[Any, ...]) -> None:
    job = granted(world)
    (member,) = members(job)

    report(member, **values)

    assert ends(job) == end
    assert Attempt.objects.get().state == end[0]


@pytest.mark.parametrize("reason", ["lost", "refused", "stopped"])
def test_what_is_not_the_jobs_fault_is_placed_again_without_counting(world: World, reason: str) -> None:
    job = granted(world, retries={"limit": 0})
    (member,) = members(job)

    report(member, reason=reason, detail="the disk is full")

    job = fresh(job)
    assert (job.state, job.reason, job.failures, job.losses) == ("pending", "submitted", 0, 1)
    assert "does not count" in job.detail
    assert "the disk is full" in job.detail
    assert job.started_at is None  # Nothing of it ever ran.
    cycle()
    assert (fresh(job).state, fresh(job).token) == ("granted", 2)


def test_a_job_that_loses_its_nodes_again_and_again_is_given_up(world: World) -> None:
    job = submit(world)
    for _ in range(LOSS_LIMIT):
        cycle()
        report(members(job)[0], reason="lost")
        assert fresh(job).state == "pending"
    cycle()
    report(members(job)[0], reason="lost")

    job = fresh(job)
    assert (job.state, job.losses, job.failures) == ("failed", LOSS_LIMIT + 1, 0)


def test_retries_wait_longer_each_time_and_the_last_failure_is_final(world: World) -> None:
    job = submit(world, retries={"limit": 2, "delay": "10s", "factor": 3.0, "jitter": 0})
    for delay in (10, 30):
        cycle()
        report(members(job)[0], reason="exited", exit_code=1)
        job = fresh(job)
        assert (job.state, job.reason) == ("pending", "backoff")
        assert job.not_before is not None
        assert (job.not_before - timezone.now()).total_seconds() == pytest.approx(delay, abs=2)
        cycle()
        assert fresh(job).state == "pending"  # It is not its time yet.
        assert fresh(job).reason == "backoff"
        Job.objects.update(not_before=timezone.now() - timedelta(seconds=1))
    cycle()
    report(members(job)[0], reason="exited", exit_code=1)

    job = fresh(job)
    assert (job.state, job.failures, job.token) == ("failed", 3, 3)


def test_a_gang_with_a_failed_member_stops_its_peers_and_holds_all_until_the_last_has_ended(world: World) -> None:
    simulated_node(world, "sim-2")
    job = granted(world, count=6)
    gang = members(job)
    assert len({member.node_id for member in gang}) == 2
    for member in gang:
        report(member, "started")

    report(gang[2], reason="exited", exit_code=5)
    assert Attempt.objects.get().stop_reason == "peer_failed"
    for member in gang[:2]:
        report(member, reason="stopped")
    for member in gang[3:5]:
        report(member, reason="exited", exit_code=0)
    assert fresh(job).state == "running"
    assert Grant.objects.get().released_at is None
    report(gang[5], reason="stopped")

    assert ends(job) == ("failed", "exited", 5)
    assert Grant.objects.get().released_at is not None
    assert verbs(job).count("job.stopping_peers") == 1


def test_a_gang_succeeds_when_all_have_and_its_result_is_that_of_rank_zero(world: World) -> None:
    job = granted(world, count=3)
    gang = members(job)

    for member in reversed(gang):
        report(member, reason="exited", exit_code=0, result={"rank": member.rank})

    assert fresh(job).state == "succeeded"
    assert fresh(job).result == {"rank": 0}


def test_the_members_of_a_gang_may_end_in_one_batch(world: World) -> None:
    job = granted(world, count=3)
    gang = members(job)

    send(gang[0].node_id, [Report(m.pk, 1, "ended", NOW, exit_code=m.rank, reason="exited") for m in gang])

    assert ends(job) == ("failed", "exited", 1)


def test_cancelling_a_waiting_job_ends_it_at_once(world: World) -> None:
    job = submit(world)

    jobs.cancel(actor=SYSTEM, job_id=job.pk, reason="not needed")
    cycle()

    assert ends(job) == ("cancelled", "cancelled", None)
    assert verbs(job) == ["job.submitted", "job.cancelled"]


@pytest.mark.parametrize("started", [False, True])
def test_cancelling_a_placed_job_stops_it_and_then_it_is_cancelled(world: World, started: bool) -> None:
    job = granted(world)
    (member,) = members(job)
    if started:
        report(member, "started")

    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    assert (fresh(job).state, Attempt.objects.get().stop_reason) == ("cancelling", "cancelled")
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    assert verbs(job).count("job.cancelling") == 1
    report(member, reason="stopped")

    assert ends(job) == ("cancelled", "stopped", None)
    with pytest.raises(Conflict):
        jobs.cancel(actor=SYSTEM, job_id=job.pk)


def test_success_that_was_on_its_way_beats_a_cancel(world: World) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")

    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    report(member, exit_code=0, reason="exited", result=1)

    assert ends(job) == ("succeeded", "exited", 0)
    assert fresh(job).result == 1


def test_a_cancelled_job_is_not_tried_again_whatever_its_end(world: World) -> None:
    for reason in ("lost", "exited", "stopped"):
        job = granted(world, retries={"limit": 5})
        jobs.cancel(actor=SYSTEM, job_id=job.pk)
        report(members(job)[0], reason=reason)
        assert fresh(job).state == "cancelled"


def test_what_no_agent_took_ends_without_one(world: World) -> None:
    job, kept = granted(world), granted(world)
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    (member,), (running,) = members(job), members(kept)

    with transaction.atomic():
        jobs.end_unborn(actor=SYSTEM, placement_ids=[member.pk, running.pk])

    assert fresh(job).state == "cancelled"
    assert fresh(job).started_at is None
    assert fresh(kept).state == "granted"


def test_strangers_do_not_know_of_a_job_and_auditors_cannot_stop_it(world: World) -> None:
    job = submit(world)

    with pytest.raises(NotFound):
        jobs.cancel(actor=world.actor("stranger"), job_id=job.pk)
    with pytest.raises(Exception, match="may not cancel"):
        jobs.cancel(actor=world.actor("auditor"), job_id=job.pk)
    jobs.cancel(actor=world.actor("member"), job_id=job.pk)

    assert fresh(job).state == "cancelled"


def test_a_pending_job_without_a_reason_cannot_be_stored(world: World) -> None:
    job = submit(world)

    with pytest.raises(IntegrityError, match="job_pending_has_a_reason"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(reason="")


def test_an_ended_job_without_a_time_cannot_be_stored(world: World) -> None:
    job = submit(world)

    with pytest.raises(IntegrityError, match="job_end_has_a_time"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(state="failed", reason="")


@pytest.mark.parametrize(
    "values",
    [
        {"exit_code": 2**40},
        {"exit_code": 0, "result": {"a": float("nan")}},
        {"exit_code": 0, "result": float("inf")},
        {"exit_code": 0, "result": "a\x00b"},
        {"exit_code": 0, "result": {"a\x00": [{"b": "\x00"}]}},
        {"exit_code": 0, "log_size": 2**63},
        {"exit_code": 0, "log_size": -5},
        {"exit_code": 0, "detail": "x\x00y" * 5000},
        {"exit_code": 0, "enforced": {"cpu\x00": "no\x00ne"}},
    ],
    ids=str,
)
def test_odd_values_in_a_report_never_keep_the_node_from_reporting(world: World, values: dict[str, Any]) -> None:
    job = granted(world)
    (member,) = members(job)

    assert report(member, reason="exited", **values) == []

    assert fresh(job).state in ("succeeded", "failed")


def test_a_result_that_is_too_large_fails_the_job_and_says_so(world: World) -> None:
    job = granted(world)

    report(members(job)[0], reason="exited", exit_code=0, result="x" * (512 * 1024))

    assert ends(job)[:2] == ("failed", "result_invalid")


@pytest.mark.parametrize(
    "at",
    # The last one by name: each process of a parallel run has a NOW of its own, and they must collect the same.
    [0.0, -1e18, 1e18, float("inf"), float("nan"), pytest.param(NOW + 1e6, id="in-twelve-days")],
)
def test_an_agents_wrong_clock_gives_the_portals_time(world: World, at: float) -> None:
    job = granted(world)
    (member,) = members(job)

    send(member.node_id, [Report(member.pk, 1, "ended", at, exit_code=0, reason="exited")])

    ended = fresh(job).ended_at
    assert ended is not None
    assert abs((ended - timezone.now()).total_seconds()) < 10


# Every state, every command: what may follow.

PLACED = ("granted", "running", "cancelling")
FINAL = ("succeeded", "failed", "cancelled")


def in_state(world: World, state: str) -> Job:
    job = submit(world, retries={"limit": 1, "delay": "1s"})
    if state == "pending":
        return job
    cycle()
    (member,) = members(job)
    if state in ("running", "succeeded"):
        report(member, "started")
    if state == "succeeded":
        report(member)
    if state == "failed":
        Job.objects.update(failures=1)
        report(member, reason="exited", exit_code=1)
    if state in ("cancelling", "cancelled"):
        jobs.cancel(actor=SYSTEM, job_id=job.pk)
    if state == "cancelled":
        report(member, reason="stopped")
    assert fresh(job).state == state
    return job


def _members_or_none(job: Job) -> Any:
    return members(job)[0] if Attempt.objects.filter(job=job).exists() else None


def act(job: Job, command: str) -> None:
    member = _members_or_none(job)
    match command:
        case "cancel":
            jobs.cancel(actor=SYSTEM, job_id=job.pk)
        case "hold":
            jobs.hold(actor=SYSTEM, job_id=job.pk)
        case "release":
            jobs.release(actor=SYSTEM, job_id=job.pk)
        case "grant":
            cycle()
        case "start" if member:
            report(member, "started")
        case "success" if member:
            report(member)
        case "failure" if member:
            report(member, reason="exited", exit_code=1)
        case "stopped" if member:
            report(member, reason="stopped")
        case "lose" if member:
            with transaction.atomic():
                jobs.end_lost(actor=SYSTEM, placement_ids=[member.pk], detail="")


FOLLOWS = {
    ("pending", "cancel"): "cancelled",
    ("pending", "grant"): "granted",
    ("granted", "cancel"): "cancelling",
    ("running", "cancel"): "cancelling",
    ("granted", "start"): "running",
    **{(state, "success"): "succeeded" for state in PLACED},
    **{(state, "failure"): "pending" for state in ("granted", "running")},
    **{(state, "stopped"): "pending" for state in ("granted", "running")},
    **{(state, "lose"): "pending" for state in ("granted", "running")},
    **{("cancelling", command): "cancelled" for command in ("failure", "stopped", "lose")},
}
COMMANDS = ("cancel", "hold", "release", "grant", "start", "success", "failure", "stopped", "lose")
REFUSED = {
    *((state, "cancel") for state in FINAL),
    *((state, command) for state in (*PLACED, *FINAL) for command in ("hold", "release")),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", JobState.values)
def test_only_declared_edges_exist(world: World, state: str, command: str) -> None:
    job = in_state(world, state)
    before = (fresh(job).__dict__ | {"_state": None}, verbs(job))

    if (state, command) in REFUSED:
        with pytest.raises(Conflict):
            act(job, command)
    else:
        act(job, command)

    after = FOLLOWS.get((state, command), state)
    assert fresh(job).state == after
    if after != state:
        assert (state, after) in JOB_EDGES
        assert JOB_EDGES[state, after] in verbs(job)
    elif (state, command) not in {("pending", "hold"), ("pending", "release"), ("cancelling", "start")}:
        assert (fresh(job).__dict__ | {"_state": None}, verbs(job)) == before
