"""The ledger never goes over: not on a node, not on a card, not in a quota, whoever acts at the same time."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.jobs import commands as jobs
from apps.jobs import configuration
from apps.jobs.commands.grants import drift
from apps.jobs.models import Grant, Job
from apps.quotas import commands as quotas
from apps.scheduling import apply as applying
from apps.scheduling.models import Cycle
from apps.scheduling.observe import observe
from apps.tenants.models import Tenant
from engine.cycle import decide
from rmctl.agent.protocol import Report
from tests.personas import World, make_limits, make_world
from tests.work import cycle, granted, job_data, members, pump, report, send, simulated_node, submit

SUBMITTERS = 200
# One connection a submitter would be more than a small server gives; they wait for one of these.
AT_ONCE = 40
CAPACITY = (
    "SELECT n.name, n.cpu_millicores, n.memory_bytes, coalesce(sum(p.cpu_millicores), 0), "
    "coalesce(sum(p.memory_bytes), 0), n.allocated_cpu_millicores, n.allocated_memory_bytes FROM fleet_node n "
    "LEFT JOIN (jobs_placement p JOIN jobs_attempt a ON a.id = p.attempt_id "
    "JOIN jobs_grant g ON g.id = a.grant_id AND g.released_at IS NULL) ON p.node_id = n.id GROUP BY n.id"
)
QUOTA = (
    "SELECT coalesce(sum((g.amounts->>'cpu')::bigint), 0), (SELECT sum(nominal) FROM quotas_quotalimit "
    "WHERE resource = 'cpu'), (SELECT coalesce(sum(used), 0) FROM quotas_quotausage WHERE resource = 'cpu') "
    "FROM jobs_grant g WHERE released_at IS NULL"
)


@pytest.fixture
def busy_world(transactional_db: None, redis_empty: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two nodes and a quota that both are too small for what is asked; simulated work moves only when pumped."""
    from tests.work import FAKE

    monkeypatch.setattr(FAKE, "submit", lambda node_ids: None)
    world = make_world()
    for leaf in (world.vision_quota, world.speech_quota):
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=make_limits(cpu=8000))
    simulated_node(world, cpu=10_000)
    simulated_node(world, "sim-2", cpu=10_000)
    return world


def found_over() -> list[str]:
    """Every sum of grants that is over its bound or differs from the sum that is kept, in one snapshot."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(CAPACITY)
        problems = [
            f"{name}: {cpu}/{memory} granted, {kept_cpu}/{kept_memory} kept, {has_cpu}/{has_memory} there"
            for name, has_cpu, has_memory, cpu, memory, kept_cpu, kept_memory in cursor.fetchall()
            if cpu > has_cpu or memory > has_memory or (cpu, memory) != (kept_cpu, kept_memory)
        ]
        cursor.execute(QUOTA)
        granted_cpu, nominal, used = cursor.fetchone()
        if granted_cpu > nominal or granted_cpu != used:
            problems.append(f"quota: {granted_cpu} granted, {used} kept, {nominal} there")
    return problems


def in_its_own_connection(work: Callable[[], Any], errors: list[BaseException]) -> None:
    """Run it in this thread with a connection of its own; what it raises goes into the list."""
    try:
        work()
    except BaseException as error:
        errors.append(error)
    finally:
        connections.close_all()


@contextmanager
def workers(*works: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Run each in a thread with a connection of its own; whatever they raise is in the list."""
    errors: list[BaseException] = []
    threads = [threading.Thread(target=in_its_own_connection, args=(work, errors)) for work in works]
    for thread in threads:
        thread.start()
    yield errors
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_two_hundred_submitters_a_scheduler_and_ending_jobs_never_take_the_ledger_over(busy_world: World) -> None:
    gate = threading.Semaphore(AT_ONCE)
    together = threading.Event()
    over: list[str] = []
    samples = 0

    def submitter(number: int) -> Callable[[], None]:
        def work() -> None:
            random_number = random.Random(number)
            tenant = busy_world.vision if number % 2 else busy_world.speech
            cpu = random_number.choice(["500m", "1", "2"])
            data = job_data("true", cpu=cpu, memory="64Mi", count=random_number.choice([1, 1, 2]))
            together.wait()
            with gate:
                jobs.submit(actor=SYSTEM, tenant=Tenant.objects.get(pk=tenant.pk), data=data)
                connections.close_all()

        return work

    def finished() -> bool:
        return Job.objects.filter(state="succeeded").count() == SUBMITTERS

    done = threading.Event()

    def scheduler() -> None:
        while not done.is_set():
            cycle()

    def node_agents() -> None:
        while not done.is_set():
            pump()

    def interferer() -> None:
        """Somebody holds and releases waiting jobs all the time."""
        while not done.is_set():
            for pk in Job.objects.filter(state="pending").order_by("?").values_list("pk", flat=True)[:3]:
                try:
                    jobs.hold(actor=SYSTEM, job_id=pk)
                    assert Job.objects.get(pk=pk).state == "pending"
                    jobs.release(actor=SYSTEM, job_id=pk)
                except Conflict:
                    continue  # It was granted meanwhile.

    def watcher() -> None:
        nonlocal samples
        while not done.is_set():
            over.extend(found_over())
            samples += 1

    works = [submitter(number) for number in range(SUBMITTERS)]
    with workers(*works, scheduler, node_agents, interferer, watcher) as errors:
        together.set()
        deadline = time.monotonic() + 50
        while not finished() and not errors and time.monotonic() < deadline:
            time.sleep(0.05)
        done.set()

    assert errors == []
    assert over == []
    assert samples > 20
    assert finished(), list(Job.objects.exclude(state="succeeded").values_list("state", "reason", "detail")[:5])
    assert drift() == []


def test_two_schedulers_that_decide_on_the_same_snapshot_do_not_grant_twice(busy_world: World) -> None:
    for _ in range(24):
        submit(busy_world, cpu="1", memory="64Mi")
    now = timezone.now()
    both = threading.Barrier(2)
    granted_by: list[int] = []

    def scheduler() -> None:
        observed = observe(now)
        assert observed is not None
        verdicts = decide(observed.snapshot, now=now.timestamp())
        both.wait(10)
        record = Cycle(at=now, considered=len(verdicts), granted=0, observe_ms=0, decide_ms=0)
        granted_by.append(applying.apply(observed, verdicts, now, record))

    with workers(scheduler, scheduler) as errors:
        pass

    assert errors == []
    assert sorted(granted_by) == [0, 16]
    assert Grant.objects.count() == 16
    assert drift() == []
    assert found_over() == []


def test_schedulers_with_different_jobs_and_nodes_share_one_quota(busy_world: World) -> None:
    for leaf in (busy_world.vision_quota, busy_world.speech_quota):
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=make_limits(cpu=2000))
    both, decided = threading.Barrier(2), []
    now = timezone.now()
    for name in ("a", "b"):  # One after the other each decides on its own jobs, as if the other's were not there.
        simulated_node(busy_world, f"sim-{name}", cpu=4000, labels={"half": name})
        own = [
            submit(busy_world, cpu="1", memory="64Mi", intent={"require": {"labels": {"half": [name]}}})
            for _ in range(4)
        ]
        observed = observe(now)
        assert observed is not None
        decided.append((observed, decide(observed.snapshot, now=now.timestamp())))
        for job in own:
            jobs.hold(actor=SYSTEM, job_id=job.pk)
    Job.objects.update(held=False)
    assert [[verdict.outcome for verdict in verdicts] for _, verdicts in decided] == [["grant"] * 4] * 2
    granted_by: list[int] = []

    def apply(number: int) -> Callable[[], None]:
        def work() -> None:
            record = Cycle(at=now, considered=4, granted=0, observe_ms=0, decide_ms=0)
            both.wait(10)
            granted_by.append(applying.apply(*decided[number], now, record))

        return work

    with workers(apply(0), apply(1)) as errors:
        pass

    assert errors == []
    assert sorted(granted_by) == [0, 4]
    assert found_over() == []
    assert drift() == []


def test_schedulers_without_their_lock_never_take_the_ledger_over(busy_world: World) -> None:
    for _ in range(60):
        submit(busy_world, "true", cpu="500m", memory="64Mi")
    done = threading.Event()
    over: list[str] = []

    def scheduler() -> None:
        while not done.is_set():
            configuration._kept = None
            cycle()

    def agents() -> None:
        while not done.is_set():
            pump()
            over.extend(found_over())

    with workers(scheduler, scheduler, scheduler, agents) as errors:
        deadline = time.monotonic() + 40
        while Job.objects.exclude(state="succeeded").exists() and not errors and time.monotonic() < deadline:
            time.sleep(0.02)
        done.set()

    assert errors == []
    assert over == []
    assert not Job.objects.exclude(state="succeeded").exists()
    assert drift() == []


def test_a_cancel_in_the_middle_of_a_cycle_stops_one_job_and_not_the_cycle(busy_world: World) -> None:
    spec = submit(busy_world, cpu="10m", memory="1Mi").spec
    items = [jobs.Submission(spec=spec, origin="", name="x")] * 119
    jobs.submit_many(actor=SYSTEM, tenant=busy_world.vision, owner_id=None, items=items)
    ids = list(Job.objects.order_by("-pk").values_list("pk", flat=True))
    start = threading.Barrier(3)

    def scheduler() -> None:
        start.wait(10)
        while Job.objects.filter(state="pending").exists():
            cycle()

    def canceller(mine: list[int]) -> Callable[[], None]:
        def work() -> None:
            start.wait(10)
            for pk in mine:
                jobs.cancel(actor=SYSTEM, job_id=pk)

        return work

    with workers(scheduler, canceller(ids[:60]), canceller(ids[60:])) as errors:
        pass

    assert errors == []
    assert set(Job.objects.values_list("state", flat=True)) <= {"cancelled", "cancelling"}
    assert drift() == []


def test_cancelling_and_reporting_at_the_same_time_wait_for_each_other_in_no_circle(busy_world: World) -> None:
    rows = [granted(busy_world, cpu="500m", memory="64Mi") for _ in range(12)]
    ids = [job.pk for job in rows]
    placements = {job.pk: members(job)[0] for job in rows}
    start = threading.Barrier(3)

    def cancel() -> None:
        start.wait(10)
        jobs.cancel_many(actor=SYSTEM, job_ids=list(reversed(ids)))

    def begin() -> None:
        start.wait(10)
        for placement in reversed(list(placements.values())):
            report(placement, "started")

    def renew() -> None:
        start.wait(10)
        jobs.renew_leases([(p.node_id, p.pk) for p in placements.values()], timezone.now())
        jobs.stop_placements([p.attempt_id for p in reversed(list(placements.values()))], "drained")

    for _ in range(6):
        with workers(cancel, begin, renew) as errors:
            pass
        assert errors == []
    with workers(
        *[lambda pk=pk: report(placements[pk], reason="stopped") for pk in ids],  # type: ignore[misc]
        lambda: jobs.cancel_many(actor=SYSTEM, job_ids=ids),
    ) as errors:
        pass

    assert errors == []
    assert set(Job.objects.values_list("state", flat=True)) == {"cancelled"}
    assert drift() == []


def test_a_batch_of_starts_and_ends_locks_its_jobs_in_one_order(busy_world: World) -> None:
    older, newer = (granted(busy_world, cpu="500m", memory="64Mi") for _ in range(2))
    (ending,), (starting,) = members(older), members(newer)
    now = timezone.now().timestamp()
    batch = [
        Report(starting.pk, starting.attempt.token, "started", now),
        Report(ending.pk, ending.attempt.token, "ended", now, exit_code=0, reason="exited"),
    ]
    errors: list[BaseException] = []
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=older.pk)  # As who cancels both does, from the oldest on.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (holder,) = cursor.fetchone()
            thread = threading.Thread(target=in_its_own_connection, args=(lambda: send(ending.node_id, batch), errors))
            thread.start()
            until = time.monotonic() + 10
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND %s = ANY(pg_blocking_pids(pid))"
            waiting = None
            while waiting is None:
                assert time.monotonic() < until, errors
                cursor.execute(waits, [holder])
                waiting = cursor.fetchone()
        Job.objects.select_for_update().get(pk=newer.pk)
    thread.join(30)
    assert errors == []
    assert list(Job.objects.order_by("pk").values_list("state", flat=True)) == ["succeeded", "running"]


def test_one_end_that_is_reported_twice_at_once_counts_once(busy_world: World) -> None:
    job = granted(busy_world)
    (member,) = members(job)
    start = threading.Barrier(4)

    def end() -> None:
        start.wait(10)
        assert report(member, reason="exited", exit_code=1) == []

    with workers(end, end, end, end) as errors:
        pass

    assert errors == []
    assert Job.objects.values_list("state", "failures").get() == ("failed", 1)
    assert drift() == []
