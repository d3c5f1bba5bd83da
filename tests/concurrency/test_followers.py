"""Who follows the log through the API gets every event once, in whatever order transactions commit."""

import base64
import threading
import time
from collections.abc import Callable
from random import Random
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connections, transaction

from apps.core.actors import SYSTEM
from apps.events import following
from apps.events.models import Event
from apps.events.record import Fact, record
from tests.concurrency.transactions import Transaction, numbered
from tests.conftest import Api, Apis
from tests.personas import make_world

LOG = "events?settled=true&ordering=id&subject=thing"


class Follower:
    """Goes on where the last page said."""

    def __init__(self, client: Api, address: str = LOG, limit: int = 3) -> None:
        self.client = client
        self.address = self.first = f"{address}&limit={limit}"
        self.got: list[int] = []

    def read(self) -> list[int]:
        """What is there now, page after page; returns all that was read so far."""
        more = True
        while more:
            page = self.client.get(self.address).json()
            self.got += [row["subject_id"] for row in page["results"]]
            [cursor] = parse_qs(urlsplit(page["follow"]).query)["cursor"]
            self.address, more = f"{self.first}&cursor={cursor}", page["next"] is not None
        return self.got

    def read_until(self, done: Callable[[], bool]) -> list[int]:
        """Until it is done; another worker's test, which is one transaction, may hold the server's horizon back."""
        deadline = time.monotonic() + 120
        while self.read() is not None and not done() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.got


@pytest.fixture
def client(transactional_db: None, redis_empty: None) -> Api:
    return Apis(make_world()).operator


def happen(number: int) -> None:
    record(SYSTEM, Fact("thing.happened", "thing", number))


@pytest.mark.parametrize("filters", ["", "&actor=system"])
def test_an_event_with_a_lower_id_of_a_later_transaction_is_not_missed(
    client: Api, monkeypatch: pytest.MonkeyPatch, filters: str
) -> None:
    monkeypatch.setattr(following, "MARGIN", 0)
    follower = Follower(client, LOG + filters)
    happen(1)
    follower.read_until(lambda: follower.got == [1])
    early, late = Transaction(), Transaction()
    early.do(numbered)
    late.do(numbered)
    late.do(lambda: happen(2))
    early.do(lambda: happen(3))
    assert follower.read() == [1]
    early.commit()
    assert follower.read_until(lambda: 3 in follower.got) == [1, 3]
    late.commit()
    assert list(Event.objects.filter(subject_type="thing").order_by("id").values_list("subject_id", flat=True)) == [
        1, 2, 3,
    ]  # fmt: skip
    assert follower.read_until(lambda: 2 in follower.got) == [1, 3, 2]
    happen(4)
    assert follower.read_until(lambda: 4 in follower.got) == [1, 3, 2, 4]
    # The floor keeps up, so that a page reads what is new.
    place = following._place(parse_qs(follower.address)["cursor"][0])[0]
    assert place.floor >= Event.objects.get(subject_id=1, subject_type="thing").pk


def test_many_writers_and_followers_at_once(client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MARGIN", 10)
    follower = Follower(client, limit=7)

    def write(writer: int) -> None:
        chance = Random(writer)
        try:
            for number in range(10):
                with transaction.atomic():
                    numbered()
                    time.sleep(chance.random() / 200)
                    happen(100 * writer + 2 * number)
                    time.sleep(chance.random() / 200)
                    happen(100 * writer + 2 * number + 1)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        follower.read()
    expected = sorted(100 * writer + number for writer in range(4) for number in range(20))
    follower.read_until(lambda: len(follower.got) >= len(expected))
    assert sorted(follower.got) == expected
    late = Follower(client, limit=200)
    assert sorted(late.read()) == expected


def test_a_transaction_that_is_open_when_one_begins_to_follow(client: Api) -> None:
    early = Transaction()
    early.do(lambda: happen(1))
    happen(2)
    follower = Follower(client)
    assert follower.read() == []
    early.commit()
    assert follower.read_until(lambda: len(follower.got) == 2) == [1, 2]


def test_cursors_that_no_page_gave_are_refused(client: Api) -> None:
    happen(1)
    follower = Follower(client)
    follower.read_until(lambda: follower.got == [1])
    here = following.position()
    of_another = following.Place(1, here.following + 10**6, 0, 0, 1, 0)
    for text in (str(of_another), "f1.2.3", "f1.2.3.4.5.x", "b5", "f1.2.3.4.5.99999999999999999999"):
        answer = client.get(f"{LOG}&cursor={cursor_of(text)}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "bad_cursor"), text
    # One of a list that was not followed goes on behind its row.
    first = Event.objects.get(subject_type="thing").pk
    assert client.get(f"{LOG}&cursor={cursor_of(f'a{first}')}").json()["results"] == []


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
