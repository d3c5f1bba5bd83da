"""The event log is read so that no event is lost or told twice, in whatever order transactions commit."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.events.record import Fact, record
from apps.notifications import commands, reading
from apps.notifications.models import Cursor, Delivery, Destination
from apps.notifications.sending import claim
from apps.workflows.models import Run
from tests.api.objects import make_run
from tests.concurrency.transactions import Transaction, numbered
from tests.personas import World, make_world


@pytest.fixture
def shared_world(transactional_db: None, redis_empty: None) -> World:
    world = make_world()
    make_run(world)
    return world


def subscribed(world: World) -> Destination:
    given = {"name": "oncall", "channel": "webhook", "url": "https://example.org/"}
    destination, _ = commands.create_destination(actor=SYSTEM, tenant=world.vision, **given)
    commands.subscribe(actor=SYSTEM, destination_id=destination.pk, kinds=["run.failed"])
    return destination


def fail(world: World, of: str) -> None:
    """Record what somebody hears of; nothing but the log is written, so that writers wait for nothing."""
    fact = Fact("run.failed", "run", Run.objects.get().pk, tenant_id=world.vision.pk, facts={"of": of})
    record(SYSTEM, fact)


def told(*, settled: bool = True) -> list[str]:
    """What was told after reading; with `settled` not before all is below the horizon, which other tests may hold."""
    newest = Event.objects.order_by("-xid").values_list("xid", flat=True).first() or 0
    until = time.monotonic() + 30
    while settled and reading.position().horizon <= newest and time.monotonic() < until:
        time.sleep(0.01)
    while reading.read():
        pass
    return sorted(facts["of"] for facts in Delivery.objects.values_list("facts", flat=True))


def test_a_lower_id_that_commits_later_is_told(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MARGIN", 0)
    subscribed(shared_world)
    written, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                fail(shared_world, "slow")
                written.set()
                go_on.wait(10)
        finally:
            connections.close_all()

    thread = threading.Thread(target=slow)
    thread.start()
    written.wait(10)
    for name in ("b", "c"):
        fail(shared_world, name)
    # Behind the horizon: they may not be told before what could still come in front of them.
    assert told(settled=False) == []
    go_on.set()
    thread.join()
    first = Event.objects.get(facts__of="slow").pk
    assert first < Event.objects.get(facts__of="b").pk
    assert told() == ["b", "c", "slow"]
    assert told() == ["b", "c", "slow"]
    fail(shared_world, "d")
    assert told() == ["b", "c", "d", "slow"]


def test_a_lower_id_of_a_later_transaction_is_told(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MARGIN", 0)
    subscribed(shared_world)
    early, late = Transaction(), Transaction()
    early.do(numbered)
    late.do(numbered)
    late.do(lambda: fail(shared_world, "late"))
    early.do(lambda: fail(shared_world, "early"))
    early.commit()
    while reading.read() or not Delivery.objects.exists():
        pass
    reading.read()
    late.commit()
    assert told() == ["early", "late"]


def test_many_writers_at_once(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_MAX", 7)
    subscribed(shared_world)

    def write(writer: int) -> None:
        try:
            for number in range(15):
                with transaction.atomic():
                    fail(shared_world, f"{writer}.{number}")
                    fail(shared_world, f"{writer}.{number}b")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reading.read()
    for thread in threads:
        thread.join()
    expected = [f"{writer}.{number}{part}" for writer in range(4) for number in range(15) for part in ("", "b")]
    assert told() == sorted(expected)


def test_a_pass_that_is_rolled_back_is_done_again(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribed(shared_world)
    fail(shared_world, "a")
    tell = reading.tell

    def killed(events: list[Event]) -> None:
        tell(events)
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        reading.read()
    monkeypatch.setattr(reading, "tell", tell)
    assert told() == ["a"]


def test_at_rest_nothing_is_written(shared_world: World) -> None:
    subscribed(shared_world)
    told()
    reading.read()
    before = Cursor.objects.values().get()
    reading.read()
    assert Cursor.objects.values().get() == before


def test_the_floor_follows(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MARGIN", 0)
    subscribed(shared_world)
    for number in range(5):
        fail(shared_world, str(number))
        told()
    assert Cursor.objects.get().floor >= Event.objects.order_by("-pk")[1].pk


def test_a_database_that_counts_anew_is_read_from_there(shared_world: World) -> None:
    subscribed(shared_world)
    Cursor.objects.update(xid=2**60)
    fail(shared_world, "before")
    assert told() == []
    fail(shared_world, "after")
    assert told() == ["after"]


def test_two_senders_of_one_destination(shared_world: World) -> None:
    destination = subscribed(shared_world)
    fail(shared_world, "a")
    told()
    now = timezone.now() + timedelta(seconds=1)
    claimed, barrier = [], threading.Barrier(4)

    def take() -> None:
        try:
            barrier.wait()
            claimed.append(claim(destination.pk, now))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(message is not None for message in claimed) == 1
