"""A repeated request with the same Idempotency-Key is one request."""

import threading
from typing import Any

import pytest
from django.db import connection, connections

from apps.core import idempotency
from apps.core.models import IdempotencyRecord
from apps.events.models import Event
from apps.tenants.models import ApiToken, Domain
from tests.conftest import Api
from tests.personas import soon

KEY = {"Idempotency_Key": "order-66"}


def test_a_repeat_gets_the_first_answer_and_does_nothing_more(api: Any) -> None:
    first = api.operator.post("domains", {"slug": "new"}, **KEY)
    again = api.operator.post("domains", {"slug": "new"}, **KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again["Idempotent-Replay"] == "true" and "Idempotent-Replay" not in first
    assert Event.objects.filter(verb="domain.created", facts__slug="new").count() == 1


@pytest.mark.parametrize("change", ["body", "path", "method", "scope"])
def test_the_same_key_for_another_request_is_refused(api: Any, change: str) -> None:
    client = api.operator
    client.post("domains", {"slug": "new"}, **KEY)
    if change == "body":
        answer = client.post("domains", {"slug": "other"}, **KEY)
    elif change == "path":
        answer = client.post("tenants", {"slug": "new"}, **KEY)
    elif change == "method":
        answer = client.patch("tenants/vision", {"suspended": True}, **KEY)
    else:
        answer = api.as_("operator", "write").post("domains", {"slug": "new"}, **KEY)
    assert answer.status_code == 422 and answer.json()["code"] == "idempotency_key_reused"
    assert not Domain.objects.filter(slug="other").exists()


def test_keys_belong_to_people(api: Any) -> None:
    first = api.as_("admin").post("tokens", {"name": "a"}, **KEY)
    other = api.as_("member").post("tokens", {"name": "a"}, **KEY)
    assert (first.status_code, other.status_code) == (201, 201)
    assert first.json()["token"] != other.json()["token"]


def test_a_refused_request_leaves_its_key_free(api: Any) -> None:
    client = api.operator
    assert client.post("domains", {"slug": "NOT A SLUG"}, **KEY).status_code == 422
    assert not IdempotencyRecord.objects.exists()
    assert client.post("domains", {"slug": "fine"}, **KEY).status_code == 201


def test_a_stored_answer_shows_no_token_to_who_reads_the_database(api: Any) -> None:
    answer = api.member.post("tokens", {"name": "a"}, **KEY)
    kept = IdempotencyRecord.objects.get(key="order-66")
    assert answer.json()["token"] not in str(kept.body)
    assert api.member.post("tokens", {"name": "a"}, **KEY).json() == answer.json()
    assert ApiToken.objects.filter(name="a").count() == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "ä", "a\tb"])
def test_a_bad_key_is_refused(api: Any, key: str) -> None:
    answer = api.operator.post("domains", {"slug": "new"}, Idempotency_Key=key)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert not Domain.objects.filter(slug="new").exists()


def test_an_empty_answer_is_remembered_too(api: Any) -> None:
    made = api.member.post("tokens", {"name": "a"}).json()
    for _ in range(2):
        assert api.member.delete(f"tokens/{made['id']}", **KEY).status_code == 204
    assert Event.objects.filter(verb="token.revoked").count() == 1


def test_old_answers_are_forgotten(api: Any) -> None:
    api.operator.post("domains", {"slug": "new"}, **KEY)
    assert idempotency.forget(before=soon(-1)) == 0
    assert idempotency.forget(before=soon(1)) == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once_are_one(redis_empty: None) -> None:
    from tests.personas import make_world

    world = make_world()
    token = world.token("operator")
    start = threading.Barrier(2)
    answers: list[Any] = []

    def send() -> None:
        try:
            start.wait(timeout=10)
            answers.append(Api(token).post("domains", {"slug": "race"}, **KEY))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert sum("Idempotent-Replay" in answer for answer in answers) == 1
    assert Domain.objects.filter(slug="race").count() == 1
    assert connection.is_usable()
