"""Replay: a recorded period under other policies, against what was recorded."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.fleet.commands import update_contribution
from apps.fleet.models import Contribution
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.quotas.budgets import change_budget, create_budget, delete_budget
from apps.quotas.models import HourlyConsumption
from apps.scheduling import replay
from apps.tenants.models import Role
from tests.personas import World, make_user
from tests.work import cycle, fresh, pump, simulated_node, submit

POLICIES = ["present", "easy", "conservative", "fcfs", "none"]


def record(world: World, clock: Any) -> tuple[Any, Any]:
    """A node of 4 cpu; in order of age 2 for 100 s, 4 for 100 s, and two of 1 for 50 s, each with its true limit."""
    simulated_node(world, cpu=4000)
    since = timezone.now()
    for cpu, seconds in (("2", 100), ("4", 100), ("1", 50), ("1", 50)):
        submit(world, f"sleep {seconds}", cpu=cpu, time_limit=f"{seconds}s", name=f"job-{cpu}-{seconds}")
        clock(1)
    while Job.objects.filter(ended_at=None).exists():
        cycle()
        pump()
        clock(1)
        pump()
    return since, timezone.now() + timedelta(seconds=1)


def asked(api: Any, since: Any, until: Any, persona: str = "operator", **more: Any) -> Any:
    body = {"since": since.isoformat(), "until": until.isoformat(), **more}
    return getattr(api, persona).post("replay", body)


def test_policies_are_compared_on_what_was_recorded(world: World, api: Any, clock: Any) -> None:
    since, until = record(world, clock)
    answer = asked(api, since, until, policies=POLICIES)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert (told["jobs"], told["nodes"], told["left_out"]) == (4, 1, 0)
    recorded, found = told["recorded"], told["policies"]
    assert list(found) == POLICIES
    for outcome in (recorded, *found.values()):
        assert (outcome["jobs"], outcome["finished"], outcome["evictions"]) == (4, 4, 0)
    # What was decided then is decided again: the short ones fill the hole, as they have ended by the reserved start.
    assert recorded["wait_mean_seconds"] == pytest.approx(99 / 4, abs=3)
    for name in ("present", "easy", "conservative", "none"):
        assert found[name]["wait_mean_seconds"] == pytest.approx(99 / 4, abs=3), name
    # First in, first out: they wait for the large one, 99 + 198 + 197 seconds in all.
    assert found["fcfs"]["wait_mean_seconds"] == pytest.approx((99 + 198 + 197) / 4, abs=3)
    assert found["fcfs"]["slowdown_mean"] > found["easy"]["slowdown_mean"]
    assert found["fcfs"]["utilisation"]["cpu"] < found["easy"]["utilisation"]["cpu"]
    assert found["easy"]["utilisation"]["cpu"] == pytest.approx((2 * 100 + 4 * 100 + 2 * 50) / (4 * 200), abs=0.03)


def test_only_what_ran_and_ended_in_the_period_counts(world: World, api: Any, clock: Any) -> None:
    since, until = record(world, clock)
    never = submit(world)
    jobs.cancel(actor=SYSTEM, job_id=never.pk)
    assert fresh(never).state == "cancelled"
    assert asked(api, since, timezone.now() + timedelta(seconds=5)).json()["jobs"] == 4
    first = Job.objects.order_by("ended_at").first()
    assert first is not None and first.ended_at is not None
    assert asked(api, since, first.ended_at + timedelta(seconds=1)).json()["jobs"] == 2
    refused = asked(api, until + timedelta(hours=1), until + timedelta(hours=2))
    assert (refused.status_code, refused.json()["code"]) == (422, "nothing_to_replay")


def test_who_may_ask(world: World, api: Any, clock: Any) -> None:
    since, until = record(world, clock)
    for persona in ("member", "admin", "auditor", "provider", "stranger", "nobody"):
        answer = asked(api, since, until, persona)  # The auditor is one of a tenant only.
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), persona
    assert asked(api, since, until, "anonymous").status_code == 401
    world.users["supervisor"] = make_user("sue", Role.AUDITOR)
    answer = api.as_("supervisor", "read").post(
        "replay", {"since": since.isoformat(), "until": until.isoformat(), "policies": ["easy"]}
    )
    assert answer.status_code == 200, answer.content


def test_bad_periods_are_refused(world: World, api: Any, clock: Any, monkeypatch: Any) -> None:
    since, until = record(world, clock)
    told = asked(api, until, since).json()
    assert told["errors"][0]["field"] == "until"
    told = asked(api, since, until, policies=["fair"]).json()
    assert told["errors"][0]["field"].startswith("policies")
    monkeypatch.setattr(replay, "REPLAYED_MAX", 3)
    told = asked(api, since, until).json()
    assert told["code"] == "simulation_too_large" and "at most 3" in told["detail"]


def test_budgets_of_the_time_bind_as_they_changed(world: World, api: Any, clock: Any) -> None:
    one = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=1)
    since, until = record(world, clock)
    Event.objects.filter(verb="budget.created").update(at=since - timedelta(hours=1))
    recorded = asked(api, since, until).json()
    # One at a time: the short ones pass the large one as they age, and it starts after 100 + 50 + 50 seconds.
    one_by_one = (98 + 147 + 199) / 4
    assert recorded["recorded"]["wait_mean_seconds"] == pytest.approx(one_by_one, abs=6)
    assert recorded["policies"]["present"]["wait_mean_seconds"] == pytest.approx(one_by_one, abs=6)
    free = asked(api, since, until, budgets="none").json()["policies"]["present"]
    assert free["wait_mean_seconds"] == pytest.approx(99 / 4, abs=3)
    change_budget(actor=SYSTEM, budget_id=one.pk, amount=4)
    today = asked(api, since, until, budgets="present").json()["policies"]["present"]
    assert today["wait_mean_seconds"] == pytest.approx(99 / 4, abs=3)
    # Raised in the middle of the period, after the first has ended, and deleted long after.
    Event.objects.filter(verb="budget.changed").update(at=since + timedelta(seconds=110))
    delete_budget(actor=SYSTEM, budget_id=one.pk)
    then = asked(api, since, until).json()["policies"]["present"]
    assert 99 / 4 + 10 < then["wait_mean_seconds"] < one_by_one - 8


def test_hours_that_were_used_before_the_period_count(world: World, api: Any, clock: Any) -> None:
    since, until = record(world, clock)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="cpu_hours", period="month", amount=100)
    Event.objects.filter(verb="budget.created").update(at=since - timedelta(days=40))
    assert asked(api, since, until).json()["policies"]["present"]["finished"] == 4
    hour = since.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    HourlyConsumption.objects.create(
        hour=hour, tenant=world.vision, resource="cpu", amount=100 * 1000 * 3_600_000
    )
    spent = asked(api, since, until).json()["policies"]["present"]
    assert spent["started"] == 0 or spent["wait_mean_seconds"] > 3600


def test_terms_of_the_time_bind(world: World, api: Any, clock: Any) -> None:
    since, until = record(world, clock)
    lent = Contribution.objects.get(cluster__name="alpha-fake")
    windows = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "00:01"}]
    update_contribution(actor=SYSTEM, contribution_id=lent.pk, windows=windows)
    Event.objects.filter(verb="contribution.created").update(at=since - timedelta(days=2))
    Event.objects.filter(verb="contribution.changed").update(at=since - timedelta(days=1))
    update_contribution(actor=SYSTEM, contribution_id=lent.pk, windows=[])
    Event.objects.filter(pk=Event.objects.latest("id").pk).update(at=until + timedelta(days=1))

    def started(**more: Any) -> int:
        found: int = asked(api, since, until, **more).json()["policies"]["present"]["started"]
        return found

    # Only those of 50 s fit into a minute; today the node is lent at all times.
    assert (started(), started(lending="present"), started(lending="none")) == (2, 4, 4)
