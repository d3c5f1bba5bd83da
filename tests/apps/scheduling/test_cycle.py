"""What the scheduling loop does with queued jobs, on simulated nodes."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import NotFound
from apps.fleet import commands as fleet
from apps.fleet.models import Gpu, Node
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Grant, Job
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaUsage
from apps.scheduling import apply as applying
from apps.scheduling import observe as observing
from apps.scheduling.models import Cycle, Decision
from apps.scheduling.observe import GRANTS_MAX, observe
from apps.scheduling.queries import why
from apps.tenants import commands as tenants
from engine.cycle import decide
from tests.personas import GIB, World, make_limits
from tests.work import (
    cycle,
    fresh,
    granted,
    job_data,
    members,
    pump,
    report,
    simulated_cluster,
    simulated_node,
    submit,
)


@pytest.fixture(autouse=True)
def exact_ledger(world: World) -> Any:
    yield
    assert drift() == []


def states(*submitted: Job) -> list[str]:
    return [fresh(job).state for job in submitted]


def set_cpu(world: World, vision: int, speech: int, **limits: int) -> None:
    for leaf, nominal in ((world.vision_quota, vision), (world.speech_quota, speech)):
        rows = make_limits(cpu=nominal)
        rows[0].update(limits)
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=rows)


def test_a_job_gets_a_node_is_charged_and_leaves_a_decision(world: World) -> None:
    node = simulated_node(world)
    job = submit(world, cpu="2", memory="3Gi")

    assert cycle() is False

    job = fresh(job)
    assert (job.state, job.token, job.reason, job.tried) == ("granted", 1, "", [])
    (member,) = members(job)
    assert (member.node_id, member.cpu_millicores, member.memory_bytes) == (node.pk, 2000, 3 * GIB)
    node.refresh_from_db()
    assert (node.allocated_cpu_millicores, node.running) == (2000, 1)
    assert QuotaUsage.objects.get(node=world.vision_quota, resource="cpu").used == 2000
    assert Grant.objects.get().amounts == {"cpu": 2000, "memory": 3 * GIB, "storage": 256 * 2**20}
    decision = Decision.objects.get()
    assert (decision.outcome, decision.nodes, decision.flavor) == ("grant", ["sim-1"], "cpu")
    assert decision.tried[-1]["funnel"] and decision.scores["node"] == "sim-1"
    assert Cycle.objects.get().granted == 1


def test_simulated_work_runs_to_its_end_with_its_log(world: World) -> None:
    simulated_node(world)
    quick, bad, slow = submit(world, "echo hello world"), submit(world, "exit 3"), submit(world, "sleep 60")
    cycle()

    pump()
    assert states(quick, bad, slow) == ["succeeded", "failed", "running"]
    assert fresh(bad).exit_code == 3
    assert members(quick)[0].log_size == len(b"hello world\n")
    pump(seconds=61)
    assert states(slow) == ["succeeded"]


def test_a_tenant_borrows_what_its_cohort_has_and_no_more(world: World) -> None:
    simulated_node(world, cpu=64_000)
    set_cpu(world, vision=2000, speech=2000)

    borrowed, over = submit(world, cpu="3"), submit(world, cpu="3")
    cycle()

    assert states(borrowed, over) == ["granted", "pending"]
    assert fresh(over).reason == "waiting_for_quota"
    assert fresh(over).tried[0]["quota"]["limiting"] == "everybody"


def test_a_borrowing_limit_bounds_what_is_borrowed(world: World) -> None:
    simulated_node(world, cpu=64_000)
    set_cpu(world, vision=2000, speech=2000, borrowing_limit=500)

    job, over = submit(world, cpu="2500m"), submit(world, cpu="100m")
    cycle()

    assert states(job, over) == ["granted", "pending"]
    assert fresh(over).tried[0]["quota"]["limit"] == "borrowing limit"


def test_who_borrows_goes_behind_who_does_not(world: World) -> None:
    simulated_node(world, cpu=4000)
    set_cpu(world, vision=1000, speech=3000)
    mine = [submit(world, cpu="1") for _ in range(4)]
    theirs = [submit(world, cpu="1", tenant=world.speech) for _ in range(3)]

    cycle()

    assert states(*theirs) == ["granted"] * 3
    assert states(*mine) == ["granted", "pending", "pending", "pending"]


def test_a_gang_is_placed_whole_or_not_at_all(world: World) -> None:
    simulated_node(world, cpu=4000)
    simulated_node(world, "sim-2", cpu=4000)
    blocker = granted(world, cpu="2")
    gang = submit(world, cpu="2", count=4)
    cycle()
    assert (fresh(gang).state, fresh(gang).reason) == ("pending", "waiting_for_capacity")
    assert not Grant.objects.filter(job=gang).exists()

    report(members(blocker)[0])
    cycle()

    assert sorted(member.rank for member in members(gang)) == [0, 1, 2, 3]
    assert Grant.objects.get(job=gang).amounts["cpu"] == 8000


def gpu_quota(world: World) -> None:
    rows = [*make_limits(), {"flavor": "cpu", "resource": "gpu", "nominal": 4000}]
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=rows)


def test_shares_of_a_card_are_packed_and_whole_cards_stay_whole(world: World) -> None:
    simulated_node(world, cpu=32_000, cards=2)
    gpu_quota(world)
    shares = [submit(world, cpu="100m", gpu={"milli": 400}) for _ in range(2)]
    whole = submit(world, cpu="100m", gpu={"count": 1})
    more = submit(world, cpu="100m", gpu={"count": 1})

    cycle()

    assert states(*shares, whole, more) == ["granted", "granted", "granted", "pending"]
    assert sorted(Gpu.objects.values_list("allocated_milli", flat=True)) == [800, 1000]
    assert fresh(more).reason == "waiting_for_capacity"
    (member,) = members(whole)
    assert [milli for _, milli in member.gpus] == [1000]


def test_two_whole_cards_come_from_one_node(world: World) -> None:
    simulated_node(world, cards=1)
    two = simulated_node(world, "sim-2", cards=2)
    gpu_quota(world)

    job = granted(world, gpu={"count": 2})

    assert [member.node_id for member in members(job)] == [two.pk]
    assert members(job)[0].gpus == [[0, 1000], [1, 1000]]


def test_a_higher_priority_goes_first_then_the_older(world: World) -> None:
    simulated_node(world, cpu=2000)
    low, older, newer = (submit(world, cpu="1", priority=priority) for priority in (0, 5, 5))

    cycle()

    assert states(low, older, newer) == ["pending", "granted", "granted"]


def test_a_job_that_cannot_start_does_not_block_those_behind_it(world: World) -> None:
    simulated_node(world, cpu=4000)
    granted(world, cpu="1")
    large, small = submit(world, cpu="4"), submit(world, cpu="1", time_limit="10m")

    cycle()

    assert states(large, small) == ["pending", "granted"]


def test_a_held_job_waits_until_it_is_released(world: World) -> None:
    simulated_node(world)
    job = submit(world)
    jobs.hold(actor=world.actor("member"), job_id=job.pk, reason="not before the review")
    cycle()
    assert (fresh(job).state, fresh(job).reason, fresh(job).detail) == ("pending", "held", "not before the review")

    jobs.release(actor=world.actor("member"), job_id=job.pk)
    assert fresh(job).reason == "submitted"
    cycle()

    assert states(job) == ["granted"]


def test_a_suspended_tenant_gets_nothing_new_and_is_told_why(world: World) -> None:
    simulated_node(world)
    running = granted(world)
    tenants.set_tenant_suspended(actor=SYSTEM, tenant_id=world.vision.pk, suspended=True)
    job, other = submit(world), submit(world, tenant=world.speech)
    cycle()
    assert states(running, job, other) == ["granted", "pending", "granted"]
    assert fresh(job).reason == "tenant_suspended"

    tenants.set_tenant_suspended(actor=SYSTEM, tenant_id=world.vision.pk, suspended=False)
    cycle()

    assert states(job) == ["granted"]


def test_only_the_share_of_a_node_that_is_lent_is_used(world: World) -> None:
    cluster = simulated_cluster(world, share_percent=50)
    simulated_node(world, cpu=4000, cluster=cluster)
    one, two = submit(world, cpu="2"), submit(world, cpu="1")

    cycle()

    assert states(one, two) == ["granted", "pending"]


def test_nodes_lent_to_one_domain_are_nothing_to_the_others(world: World) -> None:
    cluster = simulated_cluster(world, consumers=[world.beta])
    simulated_node(world, cluster=cluster)
    theirs = submit(world, tenant=world.speech)
    mine = jobs.submit_many(
        actor=SYSTEM,
        tenant=world.vision,
        owner_id=None,
        items=[jobs.Submission(spec=theirs.spec, origin="run:1", name="x")],
    )[0]

    cycle()

    assert states(theirs, mine) == ["granted", "pending"]
    assert fresh(mine).reason == "no_node_matches"


def test_terms_begin_and_end_by_the_clock(world: World) -> None:
    now = timezone.now()
    past = simulated_cluster(world, "past", ends_at=now - timedelta(hours=1), starts_at=now - timedelta(hours=2))
    future = simulated_cluster(world, "future", starts_at=now + timedelta(hours=1))
    simulated_node(world, "sim-past", cluster=past)
    simulated_node(world, "sim-future", cluster=future)
    job = submit(world)  # The pool is empty, which says nothing of nodes to come.

    cycle()

    assert fresh(job).reason == "no_node_matches"


def test_a_node_cordoned_between_decision_and_grant_gets_nothing_and_the_rest_is_granted(world: World) -> None:
    first, second = simulated_node(world, cpu=1000), simulated_node(world, "sim-2", cpu=1000)
    one, two = submit(world, cpu="1"), submit(world, cpu="1")
    now = timezone.now()
    observed = observe(now)
    assert observed is not None
    verdicts = decide(observed.snapshot, now=now.timestamp())
    assert [verdict.outcome for verdict in verdicts] == ["grant", "grant"]
    fleet.cordon_node(actor=SYSTEM, node_id=first.pk)

    record = Cycle(at=now, considered=2, granted=0, observe_ms=0, decide_ms=0)
    assert applying.apply(observed, verdicts, now, record) == 1

    assert (record.granted, record.refused) == (1, 1)
    assert sorted(states(one, two)) == ["granted", "pending"]
    assert [grant.attempt.placements.get().node_id for grant in Grant.objects.all()] == [second.pk]


@pytest.mark.parametrize("meanwhile", ["cancelled", "held", "granted elsewhere", "quota gone", "node filled"])
def test_a_decision_that_no_longer_holds_is_not_written(world: World, meanwhile: str) -> None:
    node = simulated_node(world, cpu=1000)
    job = submit(world, cpu="1")
    now = timezone.now()
    observed = observe(now)
    assert observed is not None
    verdicts = decide(observed.snapshot, now=now.timestamp())
    match meanwhile:
        case "cancelled":
            jobs.cancel(actor=SYSTEM, job_id=job.pk)
        case "held":
            jobs.hold(actor=SYSTEM, job_id=job.pk)
        case "granted elsewhere":
            cycle()
        case "quota gone":
            set_cpu(world, vision=0, speech=0)
        case "node filled":
            granted(world, cpu="1", priority=9)
    grants = Grant.objects.count()

    record = Cycle(at=now, considered=1, granted=0, observe_ms=0, decide_ms=0)
    assert applying.apply(observed, verdicts, now, record) == 0

    assert Grant.objects.count() == grants
    node.refresh_from_db()
    assert node.allocated_cpu_millicores <= 1000


def test_a_full_cycle_asks_for_the_next_one_at_once(world: World) -> None:
    simulated_node(world, cpu=64_000, memory=1000 * GIB)
    item = jobs.Submission(spec=submit(world, "true", cpu="10m", memory="1Mi").spec, origin="run:1", name="x")
    jobs.submit_many(actor=SYSTEM, tenant=world.vision, owner_id=None, items=[item] * GRANTS_MAX)

    assert cycle() is True
    assert Job.objects.filter(state="granted").count() == GRANTS_MAX
    rest = Job.objects.get(state="pending")
    assert rest.reason == "behind_in_queue"
    assert cycle() is False
    assert states(rest) == ["granted"]


def test_reasons_name_what_a_change_would_mend(world: World) -> None:
    node = simulated_node(world, labels={"zone": "a"})
    job = submit(world, cpu="4", intent={"require": {"labels": {"zone": ["a"]}}})
    fleet.set_labels(actor=SYSTEM, node_id=node.pk, labels={"zone": "b"})
    cycle()
    assert fresh(job).reason == "no_node_matches"
    assert "zone" in fresh(job).detail
    fleet.set_labels(actor=SYSTEM, node_id=node.pk, labels={"zone": "a"})
    Node.objects.update(cpu_millicores=2000)
    cycle()
    assert fresh(job).reason == "exceeds_every_node"
    set_cpu(world, vision=1000, speech=1000)
    cycle()
    assert fresh(job).reason == "exceeds_max_quota"

    reasons = Decision.objects.filter(job=job).order_by("id").values_list("reason", flat=True)
    assert list(reasons) == ["no_node_matches", "exceeds_every_node", "exceeds_max_quota"]


def test_a_tenant_whose_quota_was_taken_away_is_told(world: World) -> None:
    simulated_node(world)
    job = submit(world)
    quotas.delete_quota_node(actor=SYSTEM, node_id=world.vision_quota.pk)

    cycle()

    assert fresh(job).reason == "no_flavor"


def test_why_tells_members_the_reason_and_strangers_nothing(world: World) -> None:
    simulated_node(world, cpu=1000)
    running = submit(world, cpu="1")
    cycle()
    waiting = submit(world, cpu="1")
    cycle()

    answer = why(world.actor("member"), waiting.pk)
    assert (answer.reason, answer.title) == ("waiting_for_capacity", "Waiting for free capacity")
    assert answer.detail and answer.tried[0]["funnel"]
    assert why(world.actor("member"), running.pk).detail == "Placed on sim-1 in flavor cpu."
    with pytest.raises(NotFound):
        why(world.actor("stranger"), waiting.pk)


def test_a_cycle_reads_a_fixed_number_of_times_whatever_the_queue(
    world: World, django_assert_max_num_queries: Any
) -> None:
    for index in range(5):
        simulated_node(world, f"sim-{index}", cpu=8000)
    spec = jobs.submit(actor=SYSTEM, tenant=world.vision, data=job_data(cpu="100m", memory="10Mi")).spec
    items = [jobs.Submission(spec=spec, origin="", name="x")] * 150
    jobs.submit_many(actor=SYSTEM, tenant=world.vision, owner_id=None, items=items)

    with django_assert_max_num_queries(40):
        cycle()

    assert Job.objects.filter(state="granted").count() == 151


def test_why_names_a_change_after_which_the_job_starts(world: World) -> None:
    simulated_node(world, cpu=3000)
    submit(world, cpu="1")
    cycle()
    waiting = submit(world, cpu="3")
    cycle()

    [suggestion] = why(world.actor("member"), waiting.pk).suggestions

    assert suggestion.text == "2 cpu instead of 3 cpu: now"
    jobs.cancel(actor=SYSTEM, job_id=waiting.pk)
    smaller = submit(world, cpu="2")
    cycle()
    assert states(waiting, smaller) == ["cancelled", "granted"]
    assert why(world.actor("member"), smaller.pk).suggestions == []


def test_the_scheduler_expects_the_gpu_work_that_has_arrived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "_arrivals", None)
    monkeypatch.setattr(observing, "_last_arrival", 0)
    simulated_node(world, cards=2)
    gpus = {"flavor": "cpu", "resource": "gpu", "nominal": 4000}
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[*make_limits(), gpus])
    [submit(world, gpu={"count": 2}) for _ in range(3)]
    cycle()  # One runs, two wait.
    monkeypatch.setattr(observing, "_arrivals", None)  # A worker that starts anew learns from the rows.

    observed = observe(timezone.now())

    assert observed is not None
    [expected] = observed.snapshot.fleet.mix.requests
    assert (expected.gpu_count, expected.gpu_milli) == (2, 1000)
