"""Budgets: what is counted, who is refused, who waits and until when, and who is warned."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, RateLimited
from apps.events.models import Event
from apps.jobs import commands as jobs
from apps.jobs.budgets import bounds, uses, warn
from apps.jobs.models import Grant, Job
from apps.quotas import budgets
from apps.quotas.models import Budget, Consumption
from tests.personas import World
from tests.work import cycle, fresh, job_data, members, report, simulated_node, submit

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


def budget(world: World, measure: str, amount: float, **more: Any) -> Budget:
    if not {"domain", "user"} & more.keys():
        more["tenant"] = world.vision
    return budgets.create_budget(actor=SYSTEM, measure=measure, amount=amount, **more)


def used(one: Budget) -> float:
    return uses([one], timezone.now())[0].used


def finish(job: Job) -> None:
    for member in members(job):
        report(member, "started", pid=1)
        report(member)
    assert fresh(job).state == "succeeded"


def states(*submitted: Job) -> list[tuple[str, str]]:
    return [(fresh(job).state, fresh(job).reason) for job in submitted]


def test_only_so_many_run_and_the_next_starts_when_one_has_ended(world: World) -> None:
    simulated_node(world)
    budget(world, "running", 2)
    first, second, third = (submit(world, cpu="1") for _ in range(3))
    theirs = submit(world, cpu="1", tenant=world.speech)
    cycle()
    assert states(first, second, third) == [("granted", ""), ("granted", ""), ("pending", "budget_exhausted")]
    assert fresh(theirs).state == "granted" and "2 jobs run at once" in fresh(third).detail
    finish(first)
    cycle()
    assert fresh(third).state == "granted"


def test_the_budget_of_a_domain_and_of_a_person_count_too(world: World) -> None:
    simulated_node(world)
    budget(world, "running", 1, domain=world.beta)
    budget(world, "running", 1, user=world.users["member"])
    ours = [jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data()) for _ in range(2)]
    others = [submit(world, tenant=world.speech) for _ in range(2)]
    free = submit(world)
    cycle()
    assert [state for state, _ in states(*ours, *others, free)] == [
        "granted", "pending", "granted", "pending", "granted",
    ]  # fmt: skip


def test_hours_are_exact_over_midnight_and_before_and_after_the_end(world: World, clock: Any) -> None:
    simulated_node(world)
    day, month = (budget(world, "cpu_hours", 100, period=period) for period in ("day", "month"))
    job = submit(world, cpu="2")
    cycle()
    now = clock(hours=3)
    [use] = uses([day], now)
    assert (use.used, use.per_hour, use.until) == (6.0, 2.0, datetime(2026, 11, 19, tzinfo=UTC))
    clock(hours=10, milliseconds=1)
    before = used(day), used(month)
    assert before == pytest.approx((2.0, 26.0), abs=1e-6)
    finish(job)
    assert (used(day), used(month)) == before
    stored = Consumption.objects.filter(resource="cpu").order_by("day").values_list("day__day", "amount")
    assert list(stored) == [(18, 2000 * 12 * 3_600_000), (19, 2000 * (3_600_000 + 1))]


def test_who_has_used_up_waits_until_the_next_period_or_for_more(world: World, clock: Any) -> None:
    simulated_node(world)
    one = budget(world, "cpu_hours", 2, period="day")
    first = submit(world, cpu="1")
    cycle()
    clock(hours=2)
    second = submit(world, cpu="1")
    cycle()
    assert states(second) == [("pending", "budget_exhausted")]
    assert "2.00 of 2 core-hours this day; the next begins 2026-11-19 00:00 UTC" in fresh(second).detail
    budgets.change_budget(actor=SYSTEM, budget_id=one.pk, amount=3)
    cycle()
    assert fresh(second).state == "granted"
    finish(first)
    clock(hours=2)
    third = submit(world, cpu="1")
    cycle()
    assert fresh(third).reason == "budget_exhausted"
    finish(second)
    clock(hours=8)
    cycle()
    assert fresh(third).state == "granted"


def test_a_soft_budget_lets_start_and_warns_once_at_each_level(world: World, clock: Any) -> None:
    simulated_node(world)
    one = budget(world, "cpu_hours", 10, period="day", hard=False)
    submit(world, cpu="1")
    cycle()
    seen = []
    for hours in (7.9, 0.2, 0.1, 1.4, 0.1, 1.0):
        warn(clock(hours=hours))
        events = Event.objects.filter(verb="budget.warned", subject_id=one.pk).order_by("id")
        seen.append([event.facts["percent"] for event in events])
    assert seen == [[], [80], [80], [80, 95], [80, 95], [80, 95]]
    late = submit(world, cpu="1")
    cycle()
    assert fresh(late).state == "granted"
    warn(clock(hours=14))
    assert Event.objects.filter(verb="budget.warned").count() == 3


def test_the_forecast_is_when_it_is_used_up_by_what_runs(world: World, clock: Any) -> None:
    simulated_node(world)
    near, far = budget(world, "cpu_hours", 8, period="day"), budget(world, "cpu_hours", 80, period="week")
    submit(world, cpu="2")
    cycle()
    assert uses([near], clock(hours=1))[0].exhausted_at == NOON + timedelta(hours=4)
    idle = budget(world, "gpu_hours", 1, period="day")
    assert [use.exhausted_at for use in uses([far, idle], timezone.now())] == [NOON + timedelta(hours=40), None]


def test_a_rate_counts_the_last_minute_and_says_when_to_come_again(world: World, clock: Any) -> None:
    simulated_node(world)
    budget(world, "submissions", 2)
    submit(world)
    clock(seconds=20)
    submit(world)
    with pytest.raises(RateLimited) as refused:
        submit(world)
    assert refused.value.retry_after == 40 and Job.objects.count() == 2
    submit(world, tenant=world.speech)
    clock(seconds=40)
    submit(world)


def test_no_more_may_wait_than_the_budget_says(world: World) -> None:
    simulated_node(world)
    budget(world, "pending", 1)
    first = submit(world)
    with pytest.raises(Conflict) as refused:
        submit(world)
    assert refused.value.code == "too_many_pending"
    cycle()
    assert fresh(first).state == "granted"
    submit(world)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"measure": "cpu_hours", "amount": 1}, "period"),
        ({"measure": "running", "amount": 1, "period": "day"}, "period"),
        ({"measure": "running", "amount": 1, "hard": False}, "hard"),
        ({"measure": "running", "amount": 1.5}, "amount"),
        ({"measure": "submissions", "amount": 0}, "amount"),
        ({"measure": "cpu_hours", "amount": float("nan"), "period": "day"}, "amount"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(world: World, values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        budget(world, **values)
    assert refused.value.errors[0]["field"] == field


def test_there_is_one_of_a_kind_and_it_is_somebodys(world: World) -> None:
    budget(world, "running", 1)
    with pytest.raises(Conflict):
        budget(world, "running", 2)
    with pytest.raises(Invalid):
        budgets.create_budget(actor=SYSTEM, measure="running", amount=1)


def test_periods_are_those_of_the_calendar() -> None:
    dates = {period: tuple(at.date().isoformat() for at in bounds(period, NOON)) for period in ("day", "week", "month")}
    assert dates == {
        "day": ("2026-11-18", "2026-11-19"),
        "week": ("2026-11-16", "2026-11-23"),
        "month": ("2026-11-01", "2026-12-01"),
    }
    assert bounds("month", datetime(2027, 1, 31, tzinfo=UTC))[1] == datetime(2027, 2, 1, tzinfo=UTC)


def test_every_ended_grant_is_counted_once(world: World, clock: Any) -> None:
    simulated_node(world)
    for _ in range(3):
        job = submit(world, cpu="1500m")
        cycle()
        clock(seconds=10)
        finish(job)
    spans = Grant.objects.values_list("created_at", "released_at")
    total = sum((released - created).total_seconds() * 1000 * 1500 for created, released in spans)
    assert Consumption.objects.get(resource="cpu").amount == total


@pytest.mark.parametrize(
    ("before", "woken"), [(timedelta(hours=1), []), (timedelta(seconds=10), [datetime(2026, 11, 19, tzinfo=UTC)])]
)
def test_the_scheduler_wakes_when_the_next_period_begins(
    world: World, clock: Any, monkeypatch: Any, before: timedelta, woken: list[datetime]
) -> None:
    simulated_node(world)
    budget(world, "cpu_hours", 1, period="day")
    budget(world, "cpu_hours", 100, period="week")
    budget(world, "running", 9)
    finished = submit(world, cpu="1")
    cycle()
    clock(hours=2)
    finish(finished)
    waiting = submit(world, cpu="1")
    midnight = datetime(2026, 11, 19, tzinfo=UTC)
    now = clock(seconds=(midnight - before - timezone.now()).total_seconds())
    asked = []
    monkeypatch.setattr("apps.core.loops.wake_at", lambda name, at: asked.append((name, at)))
    cycle()
    assert now == midnight - before and fresh(waiting).reason == "budget_exhausted"
    assert asked == [("schedule", at) for at in woken]
    clock(seconds=before.total_seconds())
    cycle()
    assert fresh(waiting).state == "granted"


def warnings() -> list[tuple[str, int]]:
    events = Event.objects.filter(verb="budget.warned").order_by("id")
    return [(event.facts["measure"], event.facts["percent"]) for event in events]


def test_counts_and_rates_are_warned_of_once_a_day(world: World, clock: Any) -> None:
    simulated_node(world, cpu=20_000)
    budget(world, "running", 5)
    budget(world, "pending", 5)
    budget(world, "submissions", 10)
    for _ in range(4):
        submit(world)
    warn(clock(seconds=1))
    assert warnings() == [("pending", 80)]
    cycle()
    for _ in range(4):
        submit(world)
    warn(clock(seconds=1))
    assert sorted(warnings()) == [("pending", 80), ("running", 80), ("submissions", 80)]
    cycle()
    warn(clock(minutes=2))
    assert sorted(warnings()) == [("pending", 80), ("running", 80), ("running", 95), ("submissions", 80)]
    warn(clock(hours=10))
    assert len(warnings()) == 4
    warn(clock(hours=3))
    assert warnings()[4:] == [("running", 95)]


def test_nobody_is_warned_of_a_count_that_is_full_at_once(world: World) -> None:
    simulated_node(world)
    budget(world, "running", 1)
    budget(world, "pending", 4)
    for _ in range(4):
        submit(world)
    cycle()
    warn()
    assert warnings() == []
