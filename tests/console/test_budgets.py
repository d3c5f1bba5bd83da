"""The pages of budgets: what binds a person and what is left, and the forms of those who may make and change one."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.jobs.budgets import warn
from apps.jobs.models import Grant
from apps.quotas.budgets import change_budget, create_budget
from apps.quotas.models import Budget, Consumption
from apps.workflows import commands as workflows
from tests.api.objects import DEFINITION
from tests.personas import World
from tests.work import cycle, simulated_cluster, simulated_node, submit

from .conftest import People, fragment
from .test_fleet_forms import fault

NEW = "/quotas/budgets/new/"
WANTED = {
    "of": "tenant:vision", "workflow": "", "user": "", "kind": "gpu_hours:month", "window": "", "amount": "100",
    "hard": "true",
}  # fmt: skip


def words(page: Any) -> str:
    """The text of a page without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


def rows(page: Any) -> list[str]:
    """The text of each row of the table of budgets, without what only a narrow screen shows."""
    wide = re.sub(r'<span class="sub phone-only">.*?</span>', "", page.content.decode())
    found = re.findall(r'<tr data-testid="budget-\d+">(.*?)</tr>', wide, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


def used(world: World, hours: float) -> None:
    """Let ended jobs of vision have used so many core-hours today."""
    from django.utils import timezone

    Consumption.objects.create(
        day=timezone.now().date(), tenant=world.vision, resource="cpu", amount=int(hours * 1000 * 3_600_000)
    )


def test_a_member_sees_what_binds_them_and_what_is_left(world: World, people: People) -> None:
    used(world, 85)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="cpu_hours", period="day", amount=100)
    create_budget(actor=SYSTEM, domain=world.alpha, measure="cpu_hours", period="month", amount=40, hard=False)
    create_budget(actor=SYSTEM, user=world.users["member"], measure="pending", amount=1200)
    create_budget(actor=SYSTEM, user=world.users["admin"], measure="pending", amount=7)
    create_budget(actor=SYSTEM, domain=world.beta, measure="running", amount=3)
    for path in ("/tenants/vision/", "/quotas/"):
        soft, hard, mine = rows(people.member.get(path))
        assert re.match(r"alpha domain, all its tenants CPU core-hours a month warns only 85 40 none now in ", soft)
        assert re.match(r"vision tenant CPU core-hours a day 85 100 15 – (in \d+ \w+|now)", hard)
        assert mine == "max person, in all tenants Jobs that wait 0 1,200 1,200 – –"
    assert len(rows(people.operator.get("/quotas/"))) == 5
    page = people.member.get("/quotas/").content.decode()
    assert "new-budget" not in page and "edit-budget" not in page
    # Red from 95 %, amber from 80 %, with marks at both.
    assert 'aria-label="85 of 40 used"><rect width="100.00%" class="is-full">' in page
    bar = '<rect width="85.00%" class="is-warn"></rect><rect x="80.00%" width="1.5" class="is-mark">'
    assert bar + '</rect><rect x="95.00%"' in page


def test_what_runs_is_seen_without_loading_the_page_anew(world: World, people: People) -> None:
    simulated_node(world)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=2)
    assert rows(fragment(people.member, "/quotas/", "quota-budgets")) == [
        "vision tenant Jobs at once 0 2 2 – –"
    ]
    submit(world)
    submit(world)
    cycle()
    assert rows(fragment(people.member, "/tenants/vision/", "tenant-budgets")) == [
        "vision tenant Jobs at once 2 2 none – –"
    ]


def test_where_there_is_none_the_page_says_what_one_would_do(world: World, people: People) -> None:
    operator = people.operator.get("/tenants/vision/").content.decode()
    assert "No budget" in operator and f'href="{NEW}?tenant=vision"' in operator
    member = people.member.get("/tenants/vision/")
    assert "An operator or an admin of the tenant can bound hours and cost" in words(member)
    assert NEW not in member.content.decode()
    assert "None binds you" in words(people.stranger.get("/quotas/"))


def test_one_is_made_changed_and_deleted(world: World, people: People) -> None:
    operator = people.operator
    page = operator.get(f"{NEW}?tenant=vision").content.decode()
    assert '<option value="tenant:vision" selected>' in page
    made = operator.post(NEW, {**WANTED, "amount": "12.5"})
    assert made["Location"] == "/tenants/vision/"
    one = Budget.objects.get()
    assert (one.tenant, one.measure, one.period, one.amount, one.hard) == (
        world.vision, "gpu_hours", "month", 12.5, True
    )  # fmt: skip
    path = f"/quotas/budgets/{one.pk}/"
    page = operator.get(path).content.decode()
    assert 'name="amount" type="text" value="12.5"' in page
    seen = re.search(r'name="seen" value="([^"]*)"', page)
    assert seen is not None
    assert operator.post(path, {"amount": "20", "seen": seen[1]}).status_code == 302
    one.refresh_from_db()
    assert (one.amount, one.hard) == (20, False)
    assert operator.post(f"{path}delete")["Location"] == "/tenants/vision/"
    assert not Budget.objects.exists()
    verbs = Event.objects.filter(subject_type="budget").order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["budget.created", "budget.changed", "budget.deleted"]


def made_of(changes: dict[str, str]) -> str:
    """The period as it is stored: 48 hours are two days."""
    period = changes["kind"].partition(":")[2]
    return "2d" if period == "window" else period


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({"of": "domain:beta", "kind": "running:"}, "domain beta"),
        ({"of": "user:", "user": "max", "kind": "submissions:"}, "person max"),
        ({"workflow": "etl", "kind": "cpu_hours:week"}, "workflow etl of tenant vision"),
        ({"user": "max", "kind": "cost:window", "window": "48h"}, "max in tenant vision"),
    ],
)
def test_there_are_budgets_of_every_level(world: World, people: People, changes: dict[str, str], of: str) -> None:
    workflow = workflows.push(actor=SYSTEM, tenant=world.vision, definition=DEFINITION).workflow
    assert people.operator.post(NEW, {**WANTED, **changes}).status_code == 302
    assert (Budget.objects.get().of, Budget.objects.get().period) == (of, made_of(changes))
    page = people.operator.get("/quotas/").content.decode()
    assert len(rows(people.member.get(f"/workflows/{workflow.pk}/"))) == ("workflow" in changes)
    assert (f'<a href="/workflows/{workflow.pk}/">etl</a>' in page) == ("workflow" in changes)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"amount": "-1"}, "amount", "a number from 0"),
        ({"amount": "nan"}, "amount", "is not a number such as"),
        ({"amount": "1e3"}, "amount", "is not a number such as"),
        ({"amount": ""}, "amount", "is not a number such as"),
        ({"kind": "running:", "amount": "1.5"}, "amount", "whole number"),
        ({"kind": "running:", "hard": None}, "hard", "only use over time"),
        ({"kind": "running:month"}, "kind", "Choose what is counted"),
        ({"of": "tenant:nowhere"}, "of", "no tenant nowhere"),
        ({"of": "cluster:1"}, "of", "Choose a tenant"),
        ({"of": "user:", "user": "who"}, "user", "no user who"),
        ({"of": "domain:alpha", "user": "max"}, "user", "choose that above"),
        ({"user": "sven"}, "user", "has no member sven"),
        ({"user": "max", "workflow": "etl"}, "workflow", "has no workflow"),
        ({"kind": "cost:window", "window": "a while"}, "window", "such as 24h or 7d"),
        ({"kind": "cost:window", "window": "32d"}, "window", "at most 31 days"),
        ({"kind": "cost:month", "window": "7d"}, "window", "choose a window that moves"),
        ({"workflow": "etl"}, "workflow", "has no workflow 'etl'"),
        ({"of": "domain:alpha", "workflow": "etl"}, "workflow", "name the tenant"),
    ],
)
def test_a_refused_value_stays_and_names_its_field(
    world: World, people: People, changes: dict[str, str | None], field: str, said: str
) -> None:
    workflows.push(actor=SYSTEM, tenant=world.speech, definition=DEFINITION)  # Of another tenant.
    sent = {name: value for name, value in {**WANTED, **changes}.items() if value is not None}
    page = people.operator.post(NEW, sent)
    assert page.status_code == 422 and said in fault(page, field)
    assert f'value="{sent["amount"]}"' in page.content.decode()
    assert not Budget.objects.exists()


def test_there_is_one_of_a_kind(world: World, people: People) -> None:
    assert people.operator.post(NEW, WANTED).status_code == 302
    again = people.operator.post(NEW, {**WANTED, "amount": "5"})
    assert again.status_code == 422 and "There is a budget of this kind already" in words(again)
    assert Budget.objects.get().amount == 100


def test_nobody_elses_change_is_overwritten_unseen(world: World, people: People) -> None:
    one = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=4)
    path = f"/quotas/budgets/{one.pk}/"
    change_budget(actor=SYSTEM, budget_id=one.pk, amount=9)
    refused = people.operator.post(path, {"amount": "5", "seen": "4.0 hard"})
    assert refused.status_code == 422 and "by somebody else meanwhile: it is 9, a limit" in words(refused)
    one.refresh_from_db()
    assert one.amount == 9 and 'name="seen" value="9.0 hard"' in refused.content.decode()
    assert people.operator.post(path, {"amount": "5", "seen": "9.0 hard"}).status_code == 302


@pytest.mark.parametrize(("persona", "status"), [("admin", 403), ("member", 403), ("stranger", 404), ("nobody", 404)])
def test_who_may_not_changes_nothing(world: World, people: People, persona: str, status: int) -> None:
    one = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=4)
    client, path = people.as_(persona), f"/quotas/budgets/{one.pk}/"
    assert client.get(path).status_code == status
    assert client.get(NEW).status_code == (200 if persona == "admin" else 403)
    for sent in (path, f"{path}delete", NEW):
        client.post(sent, {**WANTED, "of": "domain:alpha", "amount": "9", "seen": "4.0 hard"})
    assert [(row.pk, row.amount) for row in Budget.objects.all()] == [(one.pk, 4)]


def test_the_log_says_whose_budget_warned(world: World, people: People) -> None:
    used(world, 85)
    one = create_budget(actor=SYSTEM, tenant=world.vision, measure="cpu_hours", period="day", amount=100)
    warn()
    page = people.member.get("/events/?verb=budget.*")
    assert f"tenant vision budget:{one.pk}" in words(page) and "percent=80" in words(page)
    assert "Budget tenant vision warned" in words(people.member.get("/"))
    assert "tenant vision" not in words(people.stranger.get("/events/?verb=budget.*"))


def test_an_admin_makes_one_for_a_member_and_changes_only_their_own(world: World, people: People) -> None:
    create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=4)
    page = people.admin.get(f"{NEW}?tenant=vision").content.decode()
    assert re.findall(r'<option value="(tenant:\w+|domain:\w+|user:)"', page) == ["tenant:vision"]
    made = people.admin.post(NEW, {**WANTED, "user": "max", "kind": "running:", "amount": "2"})
    assert made["Location"] == "/tenants/vision/"
    mine = Budget.objects.get(user=world.users["member"])
    assert (mine.of, mine.set_by) == ("max in tenant vision", "tenant")
    page = people.admin.get("/tenants/vision/")
    assert "set by the tenant" in words(page) and page.content.decode().count("edit-budget") == 1
    assert "max member of vision" in " ".join(rows(people.member.get("/tenants/vision/")))
    assert people.admin.post(f"/quotas/budgets/{mine.pk}/", {"amount": "3", "seen": "2.0 hard"}).status_code == 302
    assert people.admin.post(f"/quotas/budgets/{mine.pk}/delete").status_code == 302


def test_what_a_tenant_and_a_job_cost_is_shown(world: World, people: People) -> None:
    cluster = simulated_cluster(world, price_per_cpu_hour="0.5")
    simulated_node(world, cluster=cluster)
    job = submit(world, cpu="2")
    cycle()
    Grant.objects.update(created_at=F("created_at") - timedelta(hours=3))
    assert re.search(r"Cost so far 3 1 an hour", words(people.member.get(f"/jobs/{job.pk}/")))
    assert re.search(r"This month: [\d.]+ core-hours, cost [\d.]+", words(people.member.get("/tenants/vision/")))
