"""The terms of a contribution: when its nodes are lent, and how much of them others may hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.events.models import Event
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster, Contribution
from apps.jobs import commands as jobs
from apps.jobs.models import Attempt, Job, Placement
from apps.quotas import commands as quotas
from apps.scheduling.apply import apply
from apps.scheduling.models import Cycle
from apps.scheduling.observe import observe
from apps.workflows import commands as workflows
from engine.cycle import decide
from tests.personas import World
from tests.work import cycle, fresh, job_data, members, pump, report, simulated_cluster, simulated_node, submit

pytestmark = pytest.mark.django_db

NIGHT = [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "18:00", "to": "08:00"}]
ZURICH = {"windows": NIGHT, "timezone": "Europe/Zurich"}
# A Wednesday in winter; Zurich is an hour ahead.
NOON = datetime(2026, 11, 18, 11, 0, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: Any) -> Any:
    """A clock at noon in Zurich, which the test moves."""
    now = [NOON]
    monkeypatch.setattr(timezone, "now", lambda: now[0])

    def move(**step: float) -> datetime:
        now[0] += timedelta(**step)
        return now[0]

    return move


def finish(job: Any) -> None:
    for member in members(job):
        report(member, "started", pid=1)
        report(member)


def held(cluster: Cluster, domain: Any) -> int:
    live = Placement.objects.filter(
        node__cluster=cluster, attempt__state__in=["granted", "running"], attempt__job__tenant__domain=domain
    )
    return sum(live.values_list("cpu_millicores", flat=True))


def test_a_node_is_lent_only_in_its_window_and_the_wait_says_until_when(world: World, clock: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, **ZURICH))
    job = submit(world)
    cycle()
    assert (fresh(job).state, fresh(job).reason) == ("pending", "waiting_for_capacity")
    assert "sim-1 is lent again from 18:00 on Wed 18 Nov (Europe/Zurich)" in fresh(job).detail
    assert [step["filter"] for step in fresh(job).tried[0]["funnel"] if step["rejected"]] == ["window"]
    clock(hours=5, minutes=59)
    cycle()
    assert fresh(job).state == "pending"
    clock(minutes=1)
    cycle()
    assert fresh(job).state == "granted"


def test_the_time_limit_ends_inside_the_window(world: World, clock: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, **ZURICH))
    clock(hours=18)  # 06:00, lent until 08:00.
    short, long = submit(world, time_limit="2h"), submit(world, time_limit=2 * 3600 + 1)
    cycle()
    assert fresh(short).state == "granted"
    assert fresh(long).state == "pending"
    assert "18:00 on Thu 19 Nov" in fresh(long).detail


def test_the_loop_is_woken_when_the_window_opens(world: World, clock: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, **ZURICH))
    submit(world)
    cycle()
    assert "schedule" not in loops._alarms
    clock(hours=6, seconds=-10)
    cycle()
    assert loops._alarms["schedule"][0] == NOON + timedelta(hours=6)


def test_a_job_that_no_window_is_long_enough_for_is_refused(world: World, clock: Any) -> None:
    world.cluster.contributions.all().delete()
    simulated_node(world, cluster=simulated_cluster(world, **ZURICH))
    with pytest.raises(Invalid, match="being lent for 15 h at a time") as refused:
        submit(world, time_limit="15h")
    assert [error["field"] for error in refused.value.errors] == ["time_limit"]
    tasks = [{"id": name, "kind": "bash", "script": "true", "time_limit": limit} for name, limit in
             (("short", "14h"), ("long", "15h"))]  # fmt: skip
    with pytest.raises(Invalid) as refused:
        workflows.push(actor=SYSTEM, tenant=world.vision, definition={"schema": 1, "name": "w", "tasks": tasks})
    assert [error["field"] for error in refused.value.errors] == ["tasks[1].time_limit"]
    assert submit(world, time_limit="14h").state == "pending"


def test_others_never_hold_more_than_the_cap_however_many_come_at_once(world: World, clock: Any) -> None:
    cluster = simulated_cluster(world, cap_cpu_millicores=3000)
    for number in range(3):
        simulated_node(world, f"sim-{number}", cluster=cluster)
    theirs = [submit(world, tenant=world.speech) for _ in range(8)]
    own = [submit(world) for _ in range(8)]
    cycle()
    assert held(cluster, world.beta) == 3000
    assert all(fresh(job).state == "granted" for job in own)
    waiting = [job for job in theirs if fresh(job).state == "pending"]
    assert len(waiting) == 5
    assert fresh(waiting[0]).reason == "waiting_for_capacity"
    assert "others may hold 0 cpu more" in fresh(waiting[0]).detail
    finish(next(job for job in theirs if fresh(job).state == "granted"))
    cycle()
    assert held(cluster, world.beta) == 3000


def test_two_cycles_that_saw_the_same_room_do_not_both_take_it(world: World, clock: Any) -> None:
    cluster = simulated_cluster(world, cap_cpu_millicores=1000)
    simulated_node(world, "one", cluster=cluster)
    simulated_node(world, "two", cluster=cluster)
    now = timezone.now()
    rounds = []
    for name in ("first", "second"):
        submit(world, name=name, tenant=world.speech)
        observed = observe(now)
        assert observed is not None
        verdicts = decide(observed.snapshot, now=now.timestamp())
        rounds.append((observed, verdicts))
    # The second cycle saw both jobs and decided before the first had written anything.
    counts = []
    for observed, verdicts in reversed(rounds):
        made = Cycle(at=now, considered=len(verdicts), granted=0, observe_ms=0, decide_ms=0)
        counts.append(apply(observed, verdicts, now, made))
    assert counts == [1, 0]
    assert held(cluster, world.beta) == 1000


def test_a_gang_above_the_cap_is_refused_with_its_arithmetic(world: World, clock: Any) -> None:
    world.cluster.contributions.all().delete()
    cluster = simulated_cluster(world, cap_cpu_millicores=3000)
    for number in range(2):
        simulated_node(world, f"sim-{number}", cluster=cluster)
    with pytest.raises(Invalid, match="Only 3 of 4 members find room together within what is lent") as refused:
        submit(world, tenant=world.speech, count=4)
    assert [error["field"] for error in refused.value.errors] == ["groups[0].resources"]
    assert submit(world, tenant=world.speech, count=3).state == "pending"
    assert submit(world, count=4).state == "pending"


def test_a_gang_that_may_be_smaller_starts_with_what_the_cap_leaves(world: World, clock: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, cap_cpu_millicores=3000))
    data = job_data(count=4)
    data["groups"][0]["min_count"] = 2
    job = jobs.submit(actor=SYSTEM, tenant=world.speech, data=data)
    cycle()
    assert fresh(job).state == "granted" and len(members(job)) == 3


def test_a_second_contribution_can_lend_what_the_first_does_not(world: World, clock: Any) -> None:
    cluster = simulated_cluster(world, **ZURICH)
    simulated_node(world, cluster=cluster)
    fleet.create_contribution(actor=SYSTEM, cluster=cluster, consumers=[world.alpha])
    own, theirs = submit(world), submit(world, tenant=world.speech)
    cycle()
    assert (fresh(own).state, fresh(theirs).state) == ("granted", "pending")


def test_a_change_of_the_terms_is_recorded_and_holds_for_the_next_grant(world: World, clock: Any) -> None:
    cluster = simulated_cluster(world)
    simulated_node(world, cluster=cluster)
    running = submit(world)
    cycle()
    row = Contribution.objects.get(cluster=cluster)
    fleet.update_contribution(actor=world.actor("provider"), contribution_id=row.pk, cap_cpu_millicores=0, **ZURICH)
    event = Event.objects.filter(verb="contribution.changed").latest("id")
    assert event.facts["windows"] == NIGHT and event.facts["timezone"] == "Europe/Zurich"
    assert event.facts["cap_cpu_millicores"] == 0
    waiting = submit(world)
    cycle()
    assert (fresh(running).state, fresh(waiting).state) == ("granted", "pending")


def test_a_simulation_starts_jobs_when_the_window_opens_and_the_cap_allows(world: World, clock: Any, api: Any) -> None:
    world.cluster.contributions.all().delete()
    simulated_node(world, cluster=simulated_cluster(world, cap_cpu_millicores=2000, **ZURICH))
    waiting = [
        submit(world, f"sleep {60 * number}", tenant=world.speech, time_limit=60 * number, name=f"job-{number}")
        for number in (2, 4, 6)
    ]
    cycle()
    pump()
    answer = api.operator.post("simulate", {"run_times": "limit"})
    assert answer.status_code == 200, answer.content
    told = {row["job"]: row["after"]["starts_at"] for row in answer.json()["jobs"]}
    clock(hours=6)
    while Job.objects.filter(state__in=("pending", "granted", "running")).exists():
        cycle()
        pump()
        running = Attempt.objects.filter(state="running").select_related("job")
        ends = [one.started_at + timedelta(seconds=one.job.spec["time_limit"]) for one in running]
        clock(seconds=(min(ends) - timezone.now()).total_seconds())
        pump()
    for job in waiting:
        start = datetime.fromisoformat(told[job.pk])
        assert abs(Attempt.objects.get(job=job).created_at - start) < timedelta(seconds=1)
    starts = sorted(datetime.fromisoformat(told[job.pk]) - NOON for job in waiting)
    assert starts == [timedelta(hours=6), timedelta(hours=6), timedelta(hours=6, minutes=2)]


def test_the_start_at_the_opening_is_reserved_and_told(world: World, clock: Any, api: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, **ZURICH))
    job = submit(world)
    cycle()
    start = api.member.get(f"jobs/{job.pk}/why").json()["start"]
    assert datetime.fromisoformat(start["reserved_at"]) == NOON + timedelta(hours=6)


def test_the_room_of_a_large_job_that_waits_for_the_cap_is_kept(world: World, clock: Any) -> None:
    simulated_node(world, cpu=8000, cluster=simulated_cluster(world, cap_cpu_millicores=3000))
    first = submit(world, "sleep 600", tenant=world.speech, cpu="2", time_limit="10m")
    cycle()
    large = submit(world, "sleep 600", tenant=world.speech, cpu="3", time_limit="10m", priority=10)
    long = submit(world, "sleep 9000", tenant=world.speech, cpu="1", time_limit="150m")
    short = submit(world, "sleep 60", tenant=world.speech, cpu="1", time_limit="1m")
    cycle()
    assert [fresh(job).state for job in (first, large, long, short)] == ["granted", "pending", "pending", "granted"]
    assert fresh(long).reason == "behind_in_queue"


def test_whoever_may_evict_evicts_those_that_fill_the_cap(world: World, clock: Any) -> None:
    simulated_node(world, cpu=8000, cluster=simulated_cluster(world, cap_cpu_millicores=2000))
    rules = {"within_queue": "lower_priority", "minimum_run_seconds": 0}
    quotas.set_rules(actor=SYSTEM, node_id=world.speech_quota.pk, rules=rules)
    low = submit(world, tenant=world.speech, cpu="2")
    own = submit(world, cpu="2")
    cycle()
    pump()
    clock(seconds=5)
    high = submit(world, tenant=world.speech, cpu="2", priority=10)
    cycle()
    assert fresh(high).reason == "waiting_for_preemption"
    assert Attempt.objects.get(job=low).stop_reason == "preempted"
    assert not Attempt.objects.get(job=own).stop_reason
    pump(20)
    cycle()
    assert fresh(high).state == "granted"
