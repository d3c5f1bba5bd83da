"""Bad input gets one clear problem that names the field, and changes nothing."""

from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from apps.core import redis as core_redis
from apps.tenants.models import Domain
from rmctl.spec.errors import FAULTS_TOLD
from tests.personas import World

JSON = "application/json"


def send(api: Any, body: bytes, content_type: str = JSON, **options: Any) -> Any:
    client = api.operator
    return Client().post("/api/v1/domains", data=body, content_type=content_type, headers=client.headers, **options)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[" * 200_000, 400, "malformed_json"),
        (b"[" * 100 + b"]" * 100, 422, "too_deep"),
        (b'{"slug": NaN}', 400, "malformed_json"),
        (b'{"slug": 1e400}', 422, "not_finite"),
        (b'{"slug": 9223372036854775808}', 422, "out_of_range"),
        (b"[]", 422, "invalid"),
        (b'"text"', 422, "invalid"),
        (b'{"slug": "a\\u0000b"}', 422, "null_character"),
        (b'{"slug": "\\ud800"}', 422, "bad_unicode"),
        (b'{"slug": 5}', 422, "invalid"),
        (b'{"slug": null}', 422, "null"),
        (b"{}", 422, "required"),
        (b"", 422, "required"),
        (b'{"slug": "ok", "nmae": "x"}', 422, "unknown_field"),
        (b'{"slug": "Not OK"}', 422, "invalid"),
        (b'{"slug": "alpha"}', 409, "exists"),
    ],
)
def test_each_fault_has_its_code(api: Any, body: bytes, status: int, code: str) -> None:
    before = Domain.objects.count()
    answer = send(api, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert Domain.objects.count() == before


def test_an_unknown_field_is_named_with_a_guess_beside_other_faults(api: Any) -> None:
    errors = send(api, b'{"nmae": "x"}').json()["errors"]
    assert {(error["field"], error["code"]) for error in errors} == {
        ("slug", "required"),
        ("nmae", "unknown_field"),
    }
    assert "did you mean 'name'?" in str(errors)


@pytest.mark.parametrize("path", ["domains", "jobs"])
def test_of_thousands_of_unknown_fields_a_hundred_are_told(api: Any, world: World, path: str) -> None:
    body = {f"filed{number}": 1 for number in range(3_000)}
    errors = api.operator.post(path, {**body, "tenant": "vision"}).json()["errors"]
    assert len(errors) == FAULTS_TOLD and "unknown_field" in {error["code"] for error in errors}


def test_of_thousands_of_wrong_elements_a_hundred_are_told(api: Any, world: World) -> None:
    answer = api.operator.put(f"quotas/{world.vision_quota.pk}/limits", {"limits": [{}] * 3_000})
    assert answer.status_code == 422 and len(answer.json()["errors"]) == FAULTS_TOLD


def test_nested_faults_have_their_path(api: Any, world: World) -> None:
    limits = [
        {"flavor": "cpu", "resource": "cpu", "nominal": 1},
        {"flavor": "cpu", "resource": "cpu", "nominal": -1},
    ]
    answer = api.operator.put(f"quotas/{world.vision_quota.pk}/limits", {"limits": limits})
    assert answer.json()["errors"][0]["field"] == "limits[1].nominal"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_other_media_types_are_refused(api: Any, kind: str) -> None:
    assert send(api, b"slug=x", kind).status_code == 415


def test_a_body_of_50_megabytes_is_refused_unread(api: Any) -> None:
    answer = send(api, b" " * (50 * 2**20))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_body_without_a_length_is_read_no_further_than_the_limit(api: Any) -> None:
    """As a chunked upload arrives: no Content-Length, and a stream that never ends."""
    from django.core.handlers.wsgi import WSGIRequest
    from django.urls import resolve

    read = 0

    class Endless:
        def read(self, size: int = -1) -> bytes:
            nonlocal read
            assert size >= 0, "must not read without a bound"
            read += size
            return b" " * size

        readline = read

    request = WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/api/v1/domains",
            "CONTENT_TYPE": JSON,
            "wsgi.input": Endless(),
            "HTTP_AUTHORIZATION": api.operator.headers["Authorization"],
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
        }
    )
    request._stream = Endless()
    answer = resolve("/api/v1/domains").func(request)
    assert answer.status_code == 413
    assert read <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1


@pytest.mark.parametrize("path", ["tokens/99999999999999999999", "jobs/9223372036854775808", "tenants/a%00b", "x"])
def test_impossible_keys_are_not_found(api: Any, path: str) -> None:
    answer = api.operator.delete(path) if path.startswith("tokens") else api.operator.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_method_that_is_not_there(api: Any) -> None:
    answer = api.operator.put("domains", {})
    assert answer.status_code == 405 and "GET" in answer["Allow"] and "POST" in answer["Allow"]


def test_a_verb_without_a_body_refuses_one(api: Any, world: World) -> None:
    from .objects import make_job

    job = make_job(world)
    answer = api.member.post(f"jobs/{job.pk}/release", {"why": "x"})
    assert answer.status_code == 422 and answer.json()["code"] == "unknown_field"


def test_a_wrong_password_tells_nothing_about_the_name(api: Any) -> None:
    answers = [api.anonymous.post("login", {"username": name, "password": "wrong"}).json() for name in ("max", "nemo")]
    assert answers[0] == answers[1] and answers[0]["code"] == "wrong_credentials"


def test_sign_in_gives_a_token_that_works(api: Any) -> None:
    made = api.anonymous.post("login", {"username": "max", "password": "max-password-1"})
    assert made.status_code == 201
    from tests.conftest import Api

    me = Api(made.json()["token"]).get("me").json()
    assert me["username"] == "max"
    assert me["roles"] == [{"role": "member", "tenant": "vision", "domain": None}]


@pytest.fixture
def slow(settings: Any) -> None:
    rates = {"user": "2/h", "login": "1/h", "join": "1/h"}
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": rates}


def test_rates_are_limited_per_person_and_told_in_headers(api: Any, slow: None) -> None:
    member = api.member
    left = [member.get("me")["RateLimit-Remaining"] for _ in range(2)]
    assert left == ["1", "0"]
    refused = member.get("me")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused["Retry-After"]) <= 3600
    assert (refused["RateLimit-Limit"], refused["RateLimit-Remaining"]) == ("2", "0")
    assert int(refused["RateLimit-Reset"]) >= 1
    assert api.admin.get("me").status_code == 200


def test_guessing_passwords_is_slowed_down(api: Any, slow: None) -> None:
    body = {"username": "max", "password": "wrong"}
    assert [api.anonymous.post("login", body).status_code for _ in range(2)] == [401, 429]


def test_without_redis_everybody_passes(
    api: Any, slow: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    away = core_redis.client.__wrapped__()
    with monkeypatch.context() as patched:
        patched.setattr(core_redis, "client", lambda: away)
        assert [api.member.get("me").status_code for _ in range(4)] == [200] * 4


def test_a_session_needs_its_csrf_token(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.users["operator"])
    assert client.get("/api/v1/me").status_code == 200
    refused = client.post("/api/v1/domains", data="{}", content_type=JSON)
    assert (refused.status_code, refused["Content-Type"]) == (403, "application/problem+json")


def test_a_mistake_of_ours_is_a_problem_without_its_trace(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.tenants import api as tenants_api

    def broken(*_: Any) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(tenants_api.queries, "list_tokens", broken)
    client = Client(raise_request_exception=False, headers=api.member.headers)
    answer = client.get("/api/v1/tokens")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert b"secret reason" not in answer.content


def test_a_database_that_is_away_is_said_so(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    from apps.tenants import api as tenants_api

    def away(*_: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(tenants_api.queries, "list_tokens", away)
    answer = api.member.get("tokens")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer["Retry-After"]
