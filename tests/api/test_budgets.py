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
