"""Budgets of what jobs cost, and of a time that moves: what is counted, when it is used up, and when free again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.events.models import Event
from apps.fleet.commands import update_contribution
from apps.jobs.budgets import forget_hours, uses, warn
from apps.jobs.models import Grant, Job
from apps.quotas.budgets import create_budget
from apps.quotas.commands import set_limits
from apps.quotas.models import Budget, Consumption, HourlyConsumption
from tests.personas import World, make_limits
from tests.work import cycle, fresh, members, report, simulated_cluster, simulated_node, submit

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: Any) -> Any:
    """A clock at noon of a Wednesday, which the test moves."""
    now = [NOON]
    monkeypatch.setattr(timezone, "now", lambda: now[0])

    def move(**step: float) -> datetime:
        now[0] += timedelta(**step)
        return now[0]

    return move


def budget(world: World, measure: str, amount: float, period: str, **more: Any) -> Budget:
    return create_budget(
        actor=SYSTEM, tenant=world.vision, measure=measure, amount=amount, period=period, **more
    )


def used(one: Budget) -> float:
    return uses([one], timezone.now())[0].used


def finish(job: Job) -> None:
    for member in members(job):
        report(member, "started", pid=1)
        report(member)
    assert fresh(job).state == "succeeded"


def test_a_job_costs_what_its_nodes_cost_when_it_was_granted(world: World, clock: Any) -> None:
    cluster = simulated_cluster(world, price_per_cpu_hour="0.040001", price_per_gpu_hour="2")
    simulated_node(world, cluster=cluster, cards=2, cpu=8000)
    limits = [*make_limits(), {"flavor": "cpu", "resource": "gpu", "nominal": 2000}]
    set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=limits)
    month = budget(world, "cost", 100, "month")
    job = submit(world, cpu="1500m", gpu={"count": 1, "milli": 250})
    cycle()
    update_contribution(actor=SYSTEM, contribution_id=cluster.contributions.get().pk, price_per_cpu_hour="7")
    clock(hours=2)
    price = 1.5 * 0.040001 + 0.25 * 2
    [use] = uses([month], timezone.now())
    assert (use.used, use.per_hour) == pytest.approx((2 * price, price))
    finish(job)
    assert used(month) == pytest.approx(2 * price)
    assert float(Grant.objects.get().price) == pytest.approx(price)
    later = submit(world, cpu="1")
    cycle()
    clock(hours=1)
    finish(later)
    assert used(month) == pytest.approx(2 * price + 7)


def test_what_is_free_leaves_no_row_of_its_own(world: World, clock: Any) -> None:
    simulated_node(world)
    job = submit(world)
    cycle()
    clock(minutes=1)
    finish(job)
    assert set(Consumption.objects.values_list("resource", flat=True)) == {"cpu"}


def test_who_has_spent_all_waits_and_is_told_in_its_words(world: World, clock: Any) -> None:
    simulated_node(world, cluster=simulated_cluster(world, price_per_cpu_hour="1"))
    budget(world, "cost", 2, "day")
    first = submit(world, cpu="1")
    cycle()
    clock(hours=1.7)
    warn(timezone.now())
    assert [event.facts["percent"] for event in Event.objects.filter(verb="budget.warned")] == [80]
    clock(hours=0.3)
    second = submit(world, cpu="1")
    cycle()
    assert fresh(second).reason == "budget_exhausted"
    assert "2.00 of 2 of cost this day; the next begins 2026-11-19 00:00 UTC" in fresh(second).detail
    finish(first)


@pytest.mark.parametrize(("period", "stored"), [("24h", "1d"), ("36h", "36h"), ("31d", "31d"), ("7d", "7d")])
def test_a_window_has_one_name(world: World, period: str, stored: str) -> None:
    assert budget(world, "cpu_hours", 1, period).period == stored


@pytest.mark.parametrize("period", ["0h", "32d", "745h", "1w", "-1h", "year", "1h ", "٣h"])
def test_what_is_no_period_is_refused(world: World, period: str) -> None:
    with pytest.raises(Invalid) as refused:
        budget(world, "cpu_hours", 1, period)
    assert refused.value.errors[0]["field"] == "period"


def test_a_window_forgets_by_the_hour_and_is_exact_for_what_runs(world: World, clock: Any) -> None:
    simulated_node(world)
    short, long = budget(world, "cpu_hours", 100, "3h"), budget(world, "cpu_hours", 100, "2d")
    job = submit(world, cpu="2")
    cycle()
    clock(hours=4, minutes=15)
    assert (used(short), used(long)) == pytest.approx((6.0, 8.5))
    finish(job)
    assert (used(short), used(long)) == pytest.approx((6.0, 8.5))
    clock(hours=1, minutes=30)  # 17:45: of the hours from 14 to 16 a quarter is left of the first.
    assert (used(short), used(long)) == pytest.approx((0.25 * 2 + 2 + 0.5, 8.5))
    clock(hours=3)
    assert (used(short), used(long)) == (0.0, 8.5)
    clock(hours=40)  # Friday 12:45: what was used from 12 to 12:45 on Wednesday has left.
    assert used(long) == pytest.approx(8.5 - 1.5)
    clock(hours=4)  # 16:45: it ended at 16:15, but its last hour leaves evenly.
    assert used(long) == pytest.approx(0.125)
    assert clock(minutes=15) and used(long) == 0.0


def test_what_an_hour_keeps_adds_up_to_its_days(world: World, clock: Any) -> None:
    simulated_node(world)
    job = submit(world, cpu="1500m")
    cycle()
    clock(hours=14, minutes=20, milliseconds=7)
    finish(job)
    hours = HourlyConsumption.objects.filter(resource="cpu").order_by("hour")
    assert [row.hour for row in hours] == [NOON + timedelta(hours=number) for number in range(15)]
    days: dict[Any, int] = {}
    for row in hours:
        days[row.hour.date()] = days.get(row.hour.date(), 0) + int(row.amount)
    stored = Consumption.objects.filter(resource="cpu").values_list("day", "amount")
    assert dict(stored) == days and sum(days.values()) == 1500 * (14 * 3_600_000 + 20 * 60_000 + 7)


def test_a_window_that_is_used_up_says_when_it_is_free_again(world: World, clock: Any) -> None:
    simulated_node(world)
    one = budget(world, "cpu_hours", 3, "4h")
    first = submit(world, cpu="1")
    cycle()
    clock(hours=3)
    finish(first)
    clock(minutes=30)
    second = submit(world, cpu="1")
    cycle()
    [use] = uses([one], timezone.now())
    assert (use.used, use.exhausted_at) == (3.0, timezone.now())
    assert use.free_at is not None and abs(use.free_at - NOON - timedelta(hours=4)) < timedelta(seconds=1)
    assert "3.00 of 3 core-hours in the last 4h; some of it is free again from 2026-11-18 16:0" in fresh(second).detail
    clock(minutes=29)
    cycle()
    assert fresh(second).state == "pending"
    clock(minutes=2)
    cycle()
    assert fresh(second).state == "granted"


def test_it_is_told_when_a_window_will_be_full(world: World, clock: Any) -> None:
    simulated_node(world)
    one, never = budget(world, "cpu_hours", 5, "4h"), budget(world, "cpu_hours", 11, "5h")
    submit(world, cpu="2")
    cycle()
    found = [use.exhausted_at for use in uses([one, never], clock(hours=1))]
    assert found[0] is not None and abs(found[0] - NOON - timedelta(hours=2.5)) < timedelta(seconds=1)
    assert found[1] is None  # After five hours as much leaves it as comes.


def test_the_jobs_of_a_member_count_in_this_tenant_alone(world: World, clock: Any) -> None:
    from apps.jobs import commands as jobs
    from tests.work import job_data

    simulated_node(world)
    create_budget(actor=SYSTEM, tenant=world.vision, user=world.users["member"], measure="running", amount=1)
    create_budget(actor=SYSTEM, tenant=world.vision, user=world.users["member"], measure="pending", amount=2)
    mine = [jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data()) for _ in range(2)]
    others = [jobs.submit(actor=world.actor("admin"), tenant=world.vision, data=job_data()) for _ in range(2)]
    cycle()
    assert [fresh(job).state for job in [*mine, *others]] == ["granted", "pending", "granted", "granted"]
    assert "budget of max in tenant vision" in fresh(mine[1]).detail


def test_what_no_window_looks_back_to_goes(world: World, clock: Any) -> None:
    for days in (31, 33):
        HourlyConsumption.objects.create(
            hour=NOON - timedelta(days=days), tenant=world.vision, resource="cpu", amount=1
        )
    forget_hours(NOON)
    assert [row.hour for row in HourlyConsumption.objects.all()] == [NOON - timedelta(days=31)]
