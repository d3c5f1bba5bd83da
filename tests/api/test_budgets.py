"""Budgets through the REST API: who sets them, who sees them, and what a refused submission is told."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.workflows import commands as workflows
from tests.personas import World

from .objects import DEFINITION

JOB = {"tenant": "vision", "groups": [{"command": ["true"]}]}


@pytest.fixture
def made(api: Any, world: World) -> dict[str, Any]:
    body = {"tenant": "vision", "measure": "gpu_hours", "period": "month", "amount": 100}
    answer = api.operator.post("budgets", body)
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


def test_an_operator_sets_one_and_its_tenant_sees_it_and_what_is_used(api: Any, made: dict[str, Any]) -> None:
    [seen] = api.member.get("budgets").json()["results"]
    assert seen == made and (made["used"], made["hard"], made["exhausted_at"]) == (0.0, True, None)
    assert made["resets_at"].endswith("-01T00:00:00Z")
    path = f"budgets/{made['id']}"
    assert api.member.patch(path, {"amount": 5}).status_code == 403
    assert api.stranger.get(path).status_code == 404 and api.stranger.get("budgets").json()["results"] == []
    assert api.operator.patch(path, {"amount": 5, "hard": False}).json()["amount"] == 5.0
    assert api.operator.delete(path).status_code == 204 and api.operator.get(path).status_code == 404


def test_above_a_rate_the_answer_says_when_to_come_again(api: Any, world: World) -> None:
    api.operator.post("budgets", {"tenant": "vision", "measure": "submissions", "amount": 1})
    assert api.member.post("jobs", JOB).status_code == 201
    refused = api.member.post("jobs", JOB)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_exceeded")
    assert refused["Content-Type"].startswith("application/problem+json")
    assert 1 <= int(refused["Retry-After"]) <= 60


def test_nobody_in_particular_has_no_budget(api: Any, world: World) -> None:
    refused = api.operator.post("budgets", {"measure": "running", "amount": 1})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "tenant")


def test_a_budget_of_a_workflow_names_one_that_its_tenant_has(api: Any, world: World) -> None:
    workflows.push(actor=SYSTEM, tenant=world.speech, definition=DEFINITION)
    body = {"tenant": "vision", "workflow": "etl", "measure": "running", "amount": 2}
    refused = api.operator.post("budgets", body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "workflow")
    assert "tenant vision has no workflow 'etl'" in refused.json()["detail"]
    refused = api.operator.post("budgets", {**body, "tenant": None, "domain": "alpha"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "workflow")
    workflows.push(actor=SYSTEM, tenant=world.vision, definition=DEFINITION)
    made = api.operator.post("budgets", body)
    assert made.status_code == 201 and made.json()["workflow"] == "etl"
    assert [row["id"] for row in api.member.get("budgets").json()["results"]] == [made.json()["id"]]
    assert api.stranger.get("budgets").json()["results"] == []


@pytest.mark.parametrize("persona", ["stranger", "nobody", "provider"])
def test_a_budget_of_another_domain_does_not_exist(api: Any, world: World, persona: str) -> None:
    theirs = {"stranger": "alpha", "nobody": "alpha", "provider": "beta"}[persona]
    path = f"budgets/{api.operator.post('budgets', {'domain': theirs, 'measure': 'running', 'amount': 3}).json()['id']}"
    client = getattr(api, persona)
    assert client.get("budgets").json()["results"] == []
    answers = [client.get(path), client.patch(path, {"amount": 9}), client.delete(path)]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert api.operator.get(path).json()["amount"] == 3


@pytest.mark.parametrize("amount", [-1, "much", None, 1e13])
def test_an_amount_that_is_none_is_refused_and_changes_nothing(api: Any, made: dict[str, Any], amount: Any) -> None:
    refused = api.operator.patch(f"budgets/{made['id']}", {"amount": amount})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "amount")
    assert api.operator.get(f"budgets/{made['id']}").json()["amount"] == 100
    body = {"tenant": "vision", "measure": "cpu_hours", "period": "day", "amount": amount}
    assert api.operator.post("budgets", body).status_code == 422


SETTERS = [
    # Who, for whom, by which right; None: refused.
    ("operator", {"tenant": "vision"}, "operator"),
    ("operator", {"domain": "beta"}, "operator"),
    ("provider", {"domain": "alpha"}, "domain"),
    ("provider", {"tenant": "vision"}, "domain"),
    ("provider", {"tenant": "vision", "user": "max"}, "domain"),
    ("provider", {"domain": "beta"}, None),
    ("provider", {"tenant": "speech"}, None),
    ("admin", {"tenant": "vision"}, "tenant"),
    ("admin", {"tenant": "vision", "user": "max"}, "tenant"),
    ("admin", {"tenant": "vision", "workflow": "etl"}, "tenant"),
    ("admin", {"domain": "alpha"}, None),
    ("admin", {"tenant": "speech"}, None),
    ("admin", {"user": "max"}, None),
    *((persona, {"tenant": "vision"}, None) for persona in ("member", "auditor", "stranger", "nobody", "anonymous")),
    ("member", {"tenant": "vision", "user": "max"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("persona", "whose", "right"), SETTERS)
def test_who_sets_budgets_of_whom(
    api: Any, world: World, persona: str, whose: dict[str, str], right: str | None
) -> None:
    workflows.push(actor=SYSTEM, tenant=world.vision, definition=DEFINITION)
    client = getattr(api, persona)
    answer = client.post("budgets", {**whose, "measure": "running", "amount": 3})
    if right is None:
        assert answer.status_code in (401, 403, 404), answer.json()
        assert api.operator.get("budgets").json()["results"] == []
        return
    assert answer.status_code == 201, answer.json()
    made = answer.json()
    assert made["set_by"] == right and {name: made[name] for name in whose} == whose
    path = f"budgets/{made['id']}"
    assert client.patch(path, {"amount": 2}).json()["amount"] == 2.0
    assert client.delete(path).status_code == 204


RANKS = {"operator": 0, "provider": 1, "admin": 2}


@pytest.mark.parametrize("setter", RANKS)
@pytest.mark.parametrize("persona", ["operator", "provider", "admin", "member", "auditor", "stranger", "nobody"])
def test_nobody_changes_what_a_higher_right_has_set(api: Any, world: World, setter: str, persona: str) -> None:
    body = {"tenant": "vision", "measure": "running", "amount": 3}
    path = f"budgets/{getattr(api, setter).post('budgets', body).json()['id']}"
    allowed = RANKS.get(persona, 9) <= RANKS[setter]
    hidden = persona in ("stranger", "nobody")
    answers = [getattr(api, persona).patch(path, {"amount": 2}), getattr(api, persona).delete(path)]
    wanted = [200, 204] if allowed else [404, 404] if hidden else [403, 403]
    assert [answer.status_code for answer in answers] == wanted


def test_budgets_of_all_rights_stand_beside_each_other_and_the_lowest_wins(api: Any, world: World) -> None:
    body = {"tenant": "vision", "measure": "pending"}
    for persona, amount in (("operator", 3), ("provider", 2), ("admin", 1)):
        assert getattr(api, persona).post("budgets", {**body, "amount": amount}).status_code == 201
    assert api.admin.post("budgets", {**body, "amount": 9}).status_code == 409
    assert api.member.post("jobs", JOB).status_code == 201
    assert api.member.post("jobs", JOB).json()["code"] == "too_many_pending"


@pytest.mark.parametrize(
    ("persona", "sees"),
    [("member", True), ("admin", True), ("provider", True), ("operator", True), ("stranger", False)],
)
def test_a_budget_of_a_member_is_seen_by_them_and_by_who_sets_it(
    api: Any, world: World, persona: str, sees: bool
) -> None:
    api.admin.post("budgets", {"tenant": "vision", "user": "max", "measure": "running", "amount": 1})
    api.admin.post("budgets", {"tenant": "vision", "user": "ada", "measure": "running", "amount": 1})
    seen = {row["user"] for row in getattr(api, persona).get("budgets").json()["results"]}
    assert seen == ({"max"} if persona == "member" else {"max", "ada"} if sees else set())


def test_a_member_is_one_of_the_tenant(api: Any, world: World) -> None:
    refused = api.admin.post("budgets", {"tenant": "vision", "user": "sven", "measure": "running", "amount": 1})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "user")


def test_a_budget_of_cost_in_a_window(api: Any, world: World) -> None:
    body = {"tenant": "vision", "measure": "cost", "period": "48h", "amount": 10}
    made = api.admin.post("budgets", body).json()
    assert (made["period"], made["resets_at"], made["free_at"]) == ("2d", None, None)
    refused = api.admin.post("budgets", {**body, "period": "40d"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "period")


def test_a_tenant_is_told_what_it_used_this_month(api: Any, world: World) -> None:
    answer = api.member.get("tenants/vision/consumption")
    assert {name: answer.json()[name] for name in ("cpu_hours", "gpu_hours", "cost")} == {
        "cpu_hours": 0, "gpu_hours": 0, "cost": 0,
    }  # fmt: skip
    assert api.stranger.get("tenants/vision/consumption").status_code == 404
