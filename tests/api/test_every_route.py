"""Every route × method × persona: no crash, nothing for nobody, and strangers learn nothing."""

import json
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from tests.personas import PERSONAS, Objects, World

from .routes import METHODS, Route, api_routes, walk

ROUTES = api_routes()
SAFE = ("GET", "HEAD", "OPTIONS")
BODIES = (None, {}, {"reason": "x", "unknown": 1}, [1], "text")
# What somebody without any credential may use: getting one, and the description of the API.
# Who calls a webhook is known by the signature alone.
WEBHOOK = "/api/v1/webhooks/{webhook_id}/deliveries"
PUBLIC = {"/api/v1/login", "/api/v1/agent/join", "/api/v1/schema", WEBHOOK}
# Not a tenant's but a domain's or everybody's: who sees what of them is in tests/apps.
SHARED = {"cluster_id", "node_id", "pool_id", "flavor_id", "region", "placement_id", "sha256", "path"}


def request(client: Client, method: str, path: str, token: str | None, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    content = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
    return client.generic(method, path, headers=headers, **content)


def rolled_back(call: Any) -> Any:
    """Do it and undo it, so that each request meets the same world."""
    with transaction.atomic():
        response = call()
        if hasattr(response, "streaming_content"):
            b"".join(response.streaming_content)
        transaction.set_rollback(True)
    return response


def ids(route: Route) -> str:
    return route.path


def test_the_walk_finds_the_api() -> None:
    assert {route.path for route in ROUTES} >= {"/api/v1/jobs", "/api/v1/jobs/{job_id}/why", "/api/v1/nodes"}
    assert not [path for path in (route.path for route in ROUTES) if "<" in path]


def test_every_view_declares_every_method() -> None:
    for route in ROUTES:
        for method in ("get", "post", "put", "patch", "delete"):
            handler = getattr(route.view, method, None)
            assert handler is None or hasattr(handler, "operation"), f"{method} {route.path}"
            assert handler is None or (handler.__doc__ or "").strip(), f"{method} {route.path} says nothing"


@pytest.mark.parametrize("route", ROUTES, ids=ids)
def test_no_persona_breaks_a_route_and_nobody_gets_in(
    world: World, objects: Objects, redis_empty: None, route: Route
) -> None:
    client = Client(raise_request_exception=False)
    for path in {route.fill(objects), route.fill({})}:
        for method in METHODS:
            for persona in PERSONAS:
                for body in BODIES if route.operation(method) and method not in SAFE else (None,):
                    token = world.token(persona)
                    response = rolled_back(lambda: request(client, method, path, token, body))  # noqa: B023
                    what = f"{method} {path} {body!r} as {persona}: {response.status_code}"
                    assert response.status_code < 500, what
                    if persona == "anonymous" and route.path not in PUBLIC:
                        assert response.status_code == 401, what
                    if persona == "anonymous" and method != "OPTIONS":
                        assert not 200 <= response.status_code < 300, what
                    if response.status_code >= 400 and method != "HEAD":
                        assert response["Content-Type"] == "application/problem+json", what
                        assert set(response.json()) == {"type", "title", "status", "code", "detail", "errors"}


def of_tenant(route: Route) -> bool:
    apart = route.path.startswith("/api/v1/agent/") or route.path == WEBHOOK
    return bool(set(route.arguments) - SHARED) and not apart


@pytest.mark.parametrize("route", [route for route in ROUTES if of_tenant(route)], ids=ids)
def test_what_belongs_to_a_tenant_is_not_there_for_strangers(
    world: World, objects: Objects, redis_empty: None, route: Route
) -> None:
    if route.path.startswith("/api/v1/join-tokens/"):
        objects["token_id"] = objects["join_token_id"]
    if route.path.startswith("/api/v1/domains/"):
        objects["slug"] = "alpha"
    path = route.fill(objects)
    client = Client(raise_request_exception=False)
    for method in METHODS:
        if getattr(route.view, method.lower(), None) is None or method == "OPTIONS":
            continue
        declared = route.operation(method)
        for persona in ("stranger", "nobody"):
            token = world.token(persona)
            body = None if declared is None or declared.stream else valid_body(declared)
            response = rolled_back(lambda: request(client, method, path, token, body))  # noqa: B023
            assert response.status_code == 404, f"{method} {path} as {persona}: {response.content!r}"
        # The route is alive: its own people get another answer than 404 for the same request.
        answers = {
            rolled_back(lambda: request(client, method, path, world.token(persona), body)).status_code  # noqa: B023
            for persona in ("operator", "member", "provider")
        }
        assert answers != {404}, f"{method} {path}: nobody can use it"


def valid_body(declared: Any) -> Any:
    """A body that passes the operation's own checks, so that the refusal is about the object."""
    from rest_framework import serializers

    if declared.body is None:
        return {}
    if not issubclass(declared.body, serializers.BaseSerializer):
        return {}
    body = {}
    for name, field in declared.body().fields.items():
        if field.required:
            body[name] = sample(field)
    return body


def sample(field: Any) -> Any:
    from rest_framework import serializers

    if isinstance(field, serializers.ChoiceField):
        return next(iter(field.choices))
    if isinstance(field, serializers.BooleanField):
        return True
    if isinstance(field, serializers.IntegerField | serializers.FloatField):
        return int(field.min_value or 0)
    if isinstance(field, serializers.ListField | serializers.ListSerializer):
        return []
    if isinstance(field, serializers.DictField | serializers.JSONField):
        return {}
    return "x"


def test_pages_without_a_session_lead_to_sign_in(world: World) -> None:
    client = Client(raise_request_exception=False)
    public = {"/healthz", "/api/v1/schema"}
    for route in walk():
        if route.path.startswith(("/accounts/", "/static/")) or route.path in public | PUBLIC:
            continue
        try:
            path = route.fill({})
        except (KeyError, ValueError):  # A regular expression of a library, without names.
            continue
        response = client.get(path)
        assert not 200 <= response.status_code < 300, f"{path} answers {response.status_code} to anybody"
        assert response.status_code < 500, path


def test_a_wrong_an_expired_and_a_revoked_token_are_told_apart_and_refused(world: World, api: Any) -> None:
    from apps.tenants import commands
    from apps.tenants.models import ApiToken
    from tests.personas import soon

    row, token = commands.create_token(actor=world.actor("member"), name="short")
    client = Client()
    assert request(client, "GET", "/api/v1/me", token).status_code == 200
    assert request(client, "GET", "/api/v1/me", token + "x").json()["detail"].startswith("This API token is not")
    ApiToken.objects.filter(pk=row.pk).update(expires_at=soon(-1))
    assert "expired" in request(client, "GET", "/api/v1/me", token).json()["detail"]
    ApiToken.objects.filter(pk=row.pk).update(revoked_at=soon(-1))
    refused = request(client, "GET", "/api/v1/me", token)
    assert "revoked" in refused.json()["detail"] and refused.status_code == 401
    assert refused["WWW-Authenticate"].startswith("Bearer")
    assert connection.in_atomic_block


def test_a_token_does_no_more_than_its_scopes(world: World, api: Any) -> None:
    assert api.as_("operator", "read").get("domains").status_code == 200
    assert api.as_("operator", "read").post("domains", {"slug": "new"}).status_code == 403
    assert api.as_("operator", "write").post("domains", {"slug": "new"}).status_code == 403
    assert api.as_("operator", "admin").post("domains", {"slug": "new"}).status_code == 201
