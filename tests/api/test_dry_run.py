"""`?dry_run=1` checks and answers like the real request and keeps nothing."""

from typing import Any

import pytest
from django.apps import apps
from django.db import models

from apps.core.models import IdempotencyRecord
from tests.personas import World

from .objects import make_job
from .routes import api_routes


def rows() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_models()}


def snapshot(model: type[models.Model]) -> list[Any]:
    return list(model._default_manager.order_by("pk").values())


def test_everything_is_as_before(api: Any, world: World) -> None:
    token = world.token("operator")
    node, job = world.node(), make_job(world)
    before, nodes = rows(), snapshot(type(node))
    requests = [
        ("POST", "domains", {"slug": "new"}, 201),
        ("POST", "tenants", {"slug": "new", "domain": "alpha"}, 201),
        ("PATCH", "tenants/vision", {"suspended": True}, 200),
        ("POST", "tenants/vision/secrets", {"name": "a", "value": "b"}, 201),
        ("POST", "tokens", {"name": "a"}, 201),
        ("POST", "clusters", {"domain": "alpha", "name": "c"}, 201),
        ("POST", f"nodes/{node.pk}/drain", {}, 200),
        ("DELETE", f"nodes/{node.pk}", None, 204),
        ("POST", "join-tokens", {"cluster": "alpha-agents"}, 201),
        ("PUT", f"quotas/{world.vision_quota.pk}/limits", {"limits": []}, 200),
        ("POST", f"jobs/{job.pk}/cancel", {}, 200),
        ("POST", "jobs", {"tenant": "vision", "groups": [{"script": "true"}]}, 201),
    ]
    assert token
    for method, path, body, status in requests:
        answer = api.operator.call(method, f"{path}?dry_run=1", body, Idempotency_Key="dry")
        assert answer.status_code == status, (path, answer.content)
        assert answer["X-Dry-Run"] == "true", path
        assert rows() == before, path
    assert snapshot(type(node)) == nodes
    assert not IdempotencyRecord.objects.exists()


def test_a_dry_run_refuses_what_the_real_one_would(api: Any) -> None:
    real = api.operator.post("domains", {"slug": "alpha"})
    dry = api.operator.post("domains?dry_run=1", {"slug": "alpha"})
    assert (real.status_code, dry.status_code) == (409, 409)
    assert real.json() == dry.json()


@pytest.mark.parametrize("value", ["2", "true", "", "yes"])
def test_other_values_are_refused(api: Any, value: str) -> None:
    answer = api.operator.post(f"domains?dry_run={value}", {"slug": "new"})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "dry_run"


def test_zero_is_a_real_run(api: Any) -> None:
    answer = api.operator.post("domains?dry_run=0", {"slug": "new"})
    assert answer.status_code == 201 and "X-Dry-Run" not in answer


def test_every_mutation_offers_it_except_uploads_and_questions() -> None:
    without = {
        route.path
        for route in api_routes()
        for method in ("POST", "PUT", "PATCH", "DELETE")
        if (declared := route.operation(method)) and not declared.dry_run
    }
    of_placements = "/api/v1/agent/placements/{placement_id}"
    uploads = {"/api/v1/bundles", f"{of_placements}/artifacts/{{path}}", f"{of_placements}/checkpoint"}
    # These keep nothing anyway.
    assert without == uploads | {"/api/v1/simulate", "/api/v1/replay"}
