"""Backfill in the product: estimates from the tenant's own finished jobs, and starts that are reserved."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.fleet import commands as fleet
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.quotas import commands as quotas
from apps.scheduling import reservations, running
from apps.scheduling.models import Decision, Reservation
from apps.scheduling.observe import observe
from apps.scheduling.runtimes import ENDED, RUNS, RUNS_OF, RunTimes, run_times
from apps.scheduling.tasks import schedule
from tests.personas import World, make_limits
from tests.work import cycle, fresh, members, pump, report, simulated_node, submit


def run_through(world: World, clock: Any, seconds: float, count: int, **more: Any) -> None:
    """So many jobs that took so many seconds each, one after the other."""
    for _ in range(count):
        job = submit(world, f"sleep {seconds}", **more)
        cycle()
        pump()
        clock(seconds)
        pump()
        assert fresh(job).state == "succeeded"


def test_the_room_of_a_waiting_job_is_kept_and_who_has_ended_by_then_goes_ahead(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    first = submit(world, cpu="2", time_limit="100s")
    cycle()
    clock(10)
    head = submit(world, cpu="4", time_limit="1h", priority=50)
    long = submit(world, cpu="1", time_limit="91s")
    short = submit(world, cpu="1", time_limit="90s")
    cycle()

    assert fresh(head).reason == "waiting_for_capacity"
    assert fresh(short).state == "granted"
    told = fresh(long)
    assert (told.state, told.reason) == ("pending", "behind_in_queue")
    start = members(first)[0].attempt.created_at + timedelta(seconds=100)
    assert told.tried[0]["ahead"]["job"] == head.pk
    assert told.tried[0]["ahead"]["start"] == pytest.approx(start.timestamp())
    kept = Reservation.objects.get()
    assert kept.job_id == head.pk and abs(kept.starts_at - start) < timedelta(seconds=1)
    assert Decision.objects.filter(job=head).latest("id").reserved_at == kept.starts_at

    clock(90)
    for job in (first, short):
        report(members(job)[0])
    cycle()
    assert fresh(head).state == "granted"
    assert not Reservation.objects.filter(job=head).exists()


def test_of_another_tenants_job_only_the_reserved_start_is_told(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=make_limits(cpu=1_000_000))
    submit(world, cpu="2", time_limit="100s", tenant=world.speech)
    cycle()
    clock(10)
    head = submit(world, cpu="4", time_limit="1h")
    long = submit(world, cpu="1", time_limit="91s", tenant=world.speech)
    cycle()
    assert fresh(head).reason == "waiting_for_capacity"
    told = fresh(long)
    assert told.reason == "behind_in_queue"
    start = Reservation.objects.get(job=head).starts_at.timestamp()
    assert told.tried[0]["ahead"] == {"job": None, "start": pytest.approx(start)}
    assert told.detail.endswith("the start that is reserved for a job of another tenant.")


def test_reserved_starts_are_told_once_a_second_and_kept_from_others_all_the_while(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    submit(world, cpu="2", time_limit="100s")
    submit(world, cpu="1", time_limit="1000s")
    cycle()
    submit(world, "true", cpu="4", time_limit="1h")
    cycle()
    (kept,) = Reservation.objects.values_list("starts_at", flat=True)
    head = submit(world, cpu="4", time_limit="1h", priority=50)
    long = submit(world, cpu="1", time_limit="2h")
    schedule()
    assert fresh(long).reason == "behind_in_queue" and fresh(long).tried[0]["ahead"]["job"] == head.pk
    assert list(Reservation.objects.values_list("starts_at", flat=True)) == [kept]
    assert set(loops._alarms) == {"schedule"}
    cycle()
    assert Reservation.objects.get().job_id == head.pk


@pytest.mark.parametrize(("mode", "second", "third"), [("none", 0, 0), ("easy", 0, 1), ("conservative", 1, 1)])
def test_a_pool_says_for_whom_starts_are_reserved(
    world: World, clock: Any, mode: str, second: int, third: int
) -> None:
    """Behind the head waits a second job for which the only hole is later; a third would take that hole's place."""
    fleet.update_pool(actor=SYSTEM, pool_id=world.pool.pk, backfill=mode)
    simulated_node(world, cpu=4000)
    submit(world, cpu="3", time_limit="100s")
    cycle()
    submit(world, cpu="4", time_limit="100s")
    waiting = submit(world, cpu="2", time_limit="100s")
    ahead = submit(world, cpu="1", time_limit="150s")
    cycle()
    assert Reservation.objects.count() == {"none": 0, "easy": 1, "conservative": 3}[mode]
    assert Reservation.objects.filter(job=waiting).count() == second
    assert (fresh(ahead).state == "pending") == bool(third)


def test_run_times_are_those_of_the_same_job_then_of_its_tenant_then_of_all(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    times = RunTimes()
    times.look([(world.vision.pk, "train")], timezone.now())
    assert times.estimate(world.vision.pk, "train", 3600).source == "limit"
    run_through(world, clock, 60, 8, name="train")
    run_through(world, clock, 10, 8, name="check")

    times = RunTimes()
    times.look([(world.vision.pk, "train"), (world.speech.pk, "train")], timezone.now())
    own = times.estimate(world.vision.pk, "train", 3600)
    assert (own.source, own.samples) == ("job", 8)
    assert own.p50 == pytest.approx(60, abs=1) and own.p90 < 3600
    assert times.estimate(world.vision.pk, "other", 3600).source == "tenant"
    assert times.estimate(world.speech.pk, "train", 3600).source == "all"


def test_run_times_follow_what_ends_without_reading_anything_twice(world: World, clock: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("apps.scheduling.runtimes.LOOK_SECONDS", 0.0)
    simulated_node(world, cpu=4000)
    key = (world.vision.pk, "train")
    times = RunTimes()
    times.look([key], timezone.now())
    for count in range(1, 4):
        run_through(world, clock, 20, 1, name="train")
        times.look([key], timezone.now())
        times.look([key], timezone.now())
        assert times.estimate(*key, 3600).samples == count
    # Cancelled jobs say nothing of how long a run takes.
    job = submit(world, name="train")
    cycle()
    pump()
    jobs.cancel(actor=SYSTEM, job_id=job.pk)
    clock(5)
    pump()
    times.look([key], timezone.now())
    assert fresh(job).state == "cancelled"
    assert times.estimate(*key, 3600).samples == 3


def test_a_key_costs_no_more_with_a_long_history(world: World, clock: Any) -> None:
    simulated_node(world)
    run_through(world, clock, 5, 2, name="train")
    latest = Job.objects.latest("id")
    attempt = latest.attempts.select_related("grant").get()

    def copies(count: int) -> None:
        for number in range(count):
            old = latest.ended_at - timedelta(days=1, seconds=number)
            twin = Job.objects.get(pk=latest.pk)
            twin.pk, twin.ended_at = None, old
            twin.save(force_insert=True)
            grant = type(attempt.grant).objects.get(pk=attempt.grant.pk)
            grant.pk, grant.job = None, twin
            grant.save(force_insert=True)
            run = type(attempt).objects.get(pk=attempt.pk)
            run.pk, run.job, run.grant, run.ended_at = None, twin, grant, old
            run.created_at = old - timedelta(seconds=9)
            run.save(force_insert=True)

    copies(2 * RUNS)
    times = RunTimes()
    with CaptureQueriesContext(connection) as asked:
        times.look([(world.vision.pk, "train")], timezone.now())
    assert len(asked) == 2
    assert times.estimate(world.vision.pk, "train", 3600).samples == RUNS
    with connection.cursor() as cursor:
        # What the indexes can do, whatever the statistics say about tables that tests fill and empty.
        for other in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            cursor.execute(f"SET LOCAL {other} = off")
        cursor.execute("EXPLAIN " + RUNS_OF, [[world.vision.pk], ["train"], timezone.now(), RUNS])
        plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "Index Scan Backward using job_runs" in plan, plan
        cursor.execute("EXPLAIN " + ENDED, ["-infinity", RUNS])
        assert "job_ended" in "\n".join(row[0] for row in cursor.fetchall())


def test_nothing_is_read_about_run_times_while_nobody_waits(world: World) -> None:
    simulated_node(world, cpu=4000)
    for _ in range(3):
        submit(world, cpu="1")
    with CaptureQueriesContext(connection) as asked:
        cycle()
        cycle()
    text = " ".join(query["sql"] for query in asked.captured_queries)
    assert "job_runs" not in text and "CROSS JOIN LATERAL" not in text
    assert "stop_reason <> ''" not in text
    assert running._kept == {}


def test_with_a_history_a_short_job_goes_ahead_although_its_limit_is_long(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    run_through(world, clock, 30, 20, name="short", cpu="1", time_limit="1d")
    submit(world, cpu="2", time_limit="1h", name="running")
    cycle()
    head = submit(world, cpu="4", name="large")
    short = submit(world, "sleep 30", cpu="1", name="short", time_limit="1d")
    cycle()
    assert fresh(head).reason == "waiting_for_capacity"
    assert fresh(short).state == "granted"


def test_a_run_that_outlives_its_estimate_moves_the_reserved_start(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    run_through(world, clock, 30, 20, name="usual")
    late = submit(world, "sleep 500", cpu="4", name="usual")
    cycle()
    pump()
    head = submit(world, cpu="4", name="large")
    cycle()
    first = Reservation.objects.get(job=head).starts_at
    clock(100)
    cycle()
    second = Reservation.objects.get(job=head).starts_at
    assert first < timezone.now() < second
    assert fresh(late).state == "running"


def test_a_run_that_the_ledger_does_not_count_yet_gives_nothing_back(world: World) -> None:
    simulated_node(world, cpu=4000)
    job = submit(world, cpu="2")
    cycle()
    submit(world, cpu="1")
    observed = observe(timezone.now())
    assert observed is not None
    snapshot = observed.snapshot
    runs = running.live_runs()
    assert [run.job for run, _ in runs] == [job.pk]
    args = (run_times(), timezone.now(), {})
    assert [one.job for one in running.expected_ends(runs, snapshot.fleet, snapshot.tree, *args)] == [job.pk]
    empty = snapshot.tree.copy()
    empty.remove(runs[0][0].queue, runs[0][0].usage)
    assert running.expected_ends(runs, snapshot.fleet, empty, *args) == []


def test_reserved_starts_that_hardly_move_are_not_written_again(world: World, clock: Any) -> None:
    job = submit(world)
    now = timezone.now()
    assert reservations.reserve({job.pk: now.timestamp() + 1000}, now) == {job.pk}
    assert reservations.reserve({job.pk: now.timestamp() + 1040}, now) == set()
    assert reservations.reserve({job.pk: now.timestamp() + 1100}, now) == {job.pk}
    assert Reservation.objects.get().starts_at.timestamp() == pytest.approx(now.timestamp() + 1100)
    assert reservations.reserve({}, now) == {job.pk}
    with CaptureQueriesContext(connection) as asked:
        assert reservations.reserve({}, now) == set()
    assert len(asked) == 0
