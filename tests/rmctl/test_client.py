"""The client: errors, repeats with one key, pages, and what is kept on disk."""

import stat
from pathlib import Path

import httpx
import pytest

from rmctl.client import (
    ApiError,
    Client,
    Config,
    ConfigError,
    Unreachable,
    config_path,
    load_config,
    save_config,
)

from .portal import Asked, FakePortal, page, problem


def client_of(handler: object, pauses: list[float] | None = None) -> Client:
    pauses = [] if pauses is None else pauses
    return Client("http://portal.test", "t", transport=httpx.MockTransport(handler), pause=pauses.append)  # type: ignore[arg-type]


def test_a_refusal_is_an_error_with_fields(portal: FakePortal) -> None:
    fault = {"field": "groups[0].resources.cpu", "message": "is negative", "code": "negative"}
    portal.on("POST jobs", problem(400, "invalid_spec", "Refused.", [fault]))
    with Client(portal.url) as asked, pytest.raises(ApiError) as refused:
        asked.submit({})
    assert (refused.value.status, refused.value.code, refused.value.errors) == (400, "invalid_spec", [fault])


def test_an_answer_that_is_no_problem_document_is_still_explained(portal: FakePortal) -> None:
    portal.on("GET me", (500, b"<html>oops"))
    with Client(portal.url) as asked, pytest.raises(ApiError, match="500"):
        asked.me()


def test_a_portal_that_moved_is_named(portal: FakePortal) -> None:
    portal.on("GET me", (301, b"", {"Location": "https://portal.example.org/api/v1/me"}))
    with (
        Client(portal.url) as asked,
        pytest.raises(ApiError, match=r"301.*points to https://portal\.example\.org"),
    ):
        asked.me()


def test_a_local_portal_is_asked_without_a_proxy(portal: FakePortal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    portal.on("GET me", (200, {"username": "mia"}))
    with Client(portal.url) as asked:
        assert asked.me() == {"username": "mia"}


def test_a_post_is_repeated_with_the_same_key() -> None:
    keys: list[str] = []
    pauses: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ConnectError("refused")
        if len(keys) == 2:
            raise httpx.ReadTimeout("too slow")
        return httpx.Response(201, json={"id": 1})

    assert client_of(handler, pauses).submit({"groups": []}) == {"id": 1}
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert pauses == [0.2, 0.4]


def test_two_posts_have_two_keys(portal: FakePortal) -> None:
    portal.on("POST jobs", (201, {"id": 1}))
    with Client(portal.url) as asked:
        asked.submit({})
        asked.submit({})
    one, other = portal.requests("POST", "jobs")
    assert one.headers["Idempotency-Key"] != other.headers["Idempotency-Key"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_whose_answer_was_lost_is_not_made_again(method: str) -> None:
    made: dict[str, int] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        first = key not in made
        made.setdefault(key, 200 if not made else 404)
        if first:
            raise httpx.ReadError("the answer was lost")
        return httpx.Response(made[key], json={})

    assert client_of(handler).request(method, "tokens/1").status_code == 200


def test_it_gives_up_in_the_end() -> None:
    tries = []

    def handler(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match=r"http://portal\.test cannot be reached: refused"):
        client_of(handler).me()
    assert len(tries) == 5


def test_a_login_is_never_repeated() -> None:
    tries = []

    def handler(request: httpx.Request) -> httpx.Response:
        tries.append(request.headers.get("Idempotency-Key"))
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable):
        client_of(handler).login("a", "b")
    assert tries == [None]


def test_a_busy_portal_is_asked_again_after_the_time_it_names() -> None:
    answers = [httpx.Response(503, headers={"Retry-After": "2"}), httpx.Response(200, json={"username": "a"})]
    pauses: list[float] = []
    assert client_of(lambda request: answers.pop(0), pauses).me() == {"username": "a"}
    assert pauses == [2.0]


def test_a_long_rate_limit_is_reported_at_once() -> None:
    response = httpx.Response(
        429, headers={"Retry-After": "60"}, json={"code": "rate_limited", "detail": "Slower."}
    )
    with pytest.raises(ApiError, match="Slower"):
        client_of(lambda request: response).me()


def test_pages_follow_the_cursor_only(portal: FakePortal) -> None:
    def rows(asked: Asked) -> object:
        if "cursor" not in asked.query:
            return page(
                {"id": 3}, {"id": 2}, following="https://elsewhere.example/api/v1/jobs?limit=9&cursor=abc"
            )
        assert asked.query == {"cursor": "abc", "limit": "200", "state": "failed"}
        return page({"id": 1})

    portal.on("GET jobs", rows)  # type: ignore[arg-type]
    with Client(portal.url) as asked:
        assert [row["id"] for row in asked.pages("jobs", state="failed", tenant=None)] == [3, 2, 1]
        assert [row["id"] for row in asked.pages("jobs", limit=1)] == [3]
    assert portal.asked[-1].query == {"limit": "1"}


def test_events_are_followed_page_after_page_and_then_looked_for_again() -> None:
    pages = {
        None: {"results": [{"id": 1}, {"id": 2}], "next": "http://p/?cursor=b", "follow": "http://p/?cursor=b"},
        "b": {"results": [], "next": None, "follow": "http://p/?cursor=c"},
        "c": {"results": [{"id": 3}], "next": None, "follow": "http://p/?cursor=d"},
    }
    pauses: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        assert (query["settled"], query["ordering"], query["verb"]) == ("true", "id", "job.*")
        return httpx.Response(200, json=pages[query.get("cursor")])

    events = client_of(answer, pauses).events(verb="job.*", look_seconds=2.0)
    assert [next(events)["id"] for _ in range(3)] == [1, 2, 3]
    assert pauses == [2.0]


def test_configuration_is_private_and_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("RMCTL_URL", "RMCTL_TOKEN", "RMCTL_TENANT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="rmctl login"):
        Client.from_config()
    saved = Config("https://portal.example.org", 'a"b\\c', "vision")
    path = save_config(saved)
    assert path == config_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_config() == saved
    assert 'a"b' not in repr(saved)
    monkeypatch.setenv("RMCTL_URL", "https://other.example.org")
    assert load_config() == Config("https://other.example.org", "", "")
    path.write_text("url = [")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config()


@pytest.mark.parametrize("url", ["portal", "ftp://x", "http://", ""])
def test_an_address_has_to_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        Client(url)
