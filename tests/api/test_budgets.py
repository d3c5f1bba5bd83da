"""Budgets through the REST API: who sets them, who sees them, and what a refused submission is told."""

from typing import Any

import pytest

from tests.personas import World

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
