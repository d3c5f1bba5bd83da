"""The OpenAPI document: complete, valid, without a warning; and nothing that it allows breaks the portal."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from tests.personas import Objects, World

from .routes import api_routes

METHODS = ("get", "post", "put", "patch", "delete")
# How many requests of each operation; the whole must stay under a minute.
EXAMPLES = 8


@cache
def document() -> dict[str, Any]:
    """The schema as clients get it."""
    answer = Client().get("/api/v1/schema")
    assert answer.status_code == 200
    return dict(json.loads(answer.content))


def operations() -> list[tuple[str, str]]:
    return [(method, route.path) for route in api_routes() for method in METHODS if route.operation(method) is not None]


def test_it_is_made_without_a_warning(tmp_path: Any) -> None:
    call_command("spectacular", "--fail-on-warn", "--format", "openapi-json", "--file", str(tmp_path / "schema.json"))


def test_it_is_valid_openapi_3_1() -> None:
    from drf_spectacular.validation import validate_schema

    assert document()["openapi"].startswith("3.1")
    validate_schema(document())


def test_it_describes_every_route_and_nothing_else() -> None:
    described = {(method, path) for path, item in document()["paths"].items() for method in item if method in METHODS}
    assert described == set(operations())


@pytest.mark.parametrize(("method", "path"), operations())
def test_every_operation_documents_refusals_credentials_and_safety(method: str, path: str) -> None:
    operation = document()["paths"][path][method]
    assert operation["summary"], "say what it does"
    for status in ("401", "422", "429"):
        content = operation["responses"][status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert operation.get("security"), "say how to sign in, or that it needs none"
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    route = next(route for route in api_routes() if route.path == path)
    declared = route.operation(method)
    assert declared is not None
    if method != "get":
        assert ("dry_run" in names) is declared.dry_run
        assert ("Idempotency-Key" in names) is declared.idempotency
    if declared.listing:
        assert {"cursor", "limit", "ordering"} <= names


def test_requests_allow_no_unknown_fields() -> None:
    schemas = document()["components"]["schemas"]
    bodies = [name for name in schemas if name.endswith("Request") and schemas[name].get("type") == "object"]
    assert bodies
    assert not [name for name in bodies if schemas[name].get("additionalProperties") is not False]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Any]:
    """The document as schemathesis reads it, calling the WSGI application in this process."""
    import schemathesis
    from django.core.signals import request_finished, request_started
    from django.core.wsgi import get_wsgi_application
    from django.db import close_old_connections

    schema = schemathesis.openapi.from_dict(document())
    application = get_wsgi_application()

    def buffered(environ: Any, start_response: Any) -> list[bytes]:
        """Reads and closes every answer, as a server does."""
        body = application(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            body.close()

    schema.app = buffered
    # As Django's own test client does: the test's transaction must outlive the request.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield schema
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.schemathesis
@pytest.mark.parametrize(("method", "path"), operations())
def test_nothing_that_the_schema_allows_or_forbids_breaks_it(
    world: World, objects: Objects, redis_empty: None, fuzzed: Any, method: str, path: str
) -> None:
    from django.db import transaction
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode

    operation = fuzzed[path][method]
    route = next(route for route in api_routes() if route.path == path)
    real = {name: objects[name] for name in route.arguments if name in objects}
    ways = [operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    if real:
        ways.append(operation.as_strategy(GenerationMode.POSITIVE, path_parameters=real))
    token = world.token("operator")

    @given(st.one_of(ways))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        verbosity=Verbosity.quiet,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with transaction.atomic():
            answer = case.call(headers=headers)
            transaction.set_rollback(True)
        assert answer.status_code < 500, (case.as_curl_command(), answer.content[:1000])
        if answer.status_code >= 400 and method != "head":
            assert answer.headers["content-type"][0].startswith("application/problem+json"), answer.content[:500]

    send()
