"""Loops: one runner at a time, no wake lost, and the timers do it all without Redis."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from apps.core import locks, loops, redis

NAME = "schedule"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what the loop's pass does; tests replace `runs.then`."""
    return []


@pytest.fixture
def a_pass(monkeypatch: pytest.MonkeyPatch, runs: list[str]) -> Callable[[Callable[[], bool]], None]:
    def replace(function: Callable[[], bool]) -> None:
        def noted() -> bool:
            runs.append("run")
            return function()

        monkeypatch.setitem(loops._passes, NAME, noted)

    replace(lambda: False)
    return replace


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Celery messages that would have been sent."""
    from celery import current_app

    messages: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: messages.append(name))
    return messages


@pytest.fixture
def no_redis(settings: Any) -> Iterator[None]:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis.client.cache_clear()
    yield
    redis.client.cache_clear()


def elsewhere(work: Callable[[], Any]) -> threading.Thread:
    """Run in another thread with a connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture
def lock_elsewhere() -> Iterator[Callable[[], Callable[[], None]]]:
    """`hold()` takes the loop's lock in another connection and returns how to let it go."""
    releases: list[Callable[[], None]] = []

    def hold() -> Callable[[], None]:
        taken, done = threading.Event(), threading.Event()

        def work() -> None:
            with locks.try_loop(NAME) as held:
                assert held
                taken.set()
                assert done.wait(10)

        thread = elsewhere(work)
        assert taken.wait(10)

        def release() -> None:
            done.set()
            thread.join()

        releases.append(release)
        return release

    yield hold
    for release in releases:
        release()


@pytest.mark.django_db(transaction=True)
def test_only_one_runner_at_a_time(redis_empty: None, a_pass: Any, runs: list[str], lock_elsewhere: Any) -> None:
    release = lock_elsewhere()
    assert loops.run(NAME) is False
    assert runs == []

    release()
    assert loops.run(NAME) is True
    assert runs == ["run"]


@pytest.mark.django_db(transaction=True)
def test_a_wake_while_the_lock_is_held_makes_its_holder_run_again(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str]
) -> None:
    def first_time() -> bool:
        if len(runs) == 1:  # Somebody commits meanwhile, and the worker that comes for it finds the lock taken.
            loops._send(NAME)
            thread = elsewhere(lambda: refused.append(loops.run(NAME)))
            thread.join()
        return False

    refused: list[bool] = []
    a_pass(first_time)

    assert loops.run(NAME) is True

    assert refused == [False]
    assert runs == ["run", "run"]
    assert sent == []  # The runner hears of it itself.


@pytest.mark.django_db(transaction=True)
def test_a_runner_stays_for_a_moment_and_is_rung_without_a_message(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = loops._rung

    def rung(name: str, deadline: float) -> bool:
        if len(runs) < 3:
            loops._send(name)  # Somebody commits while it stays.
        return stays(name, deadline)

    monkeypatch.setattr(loops, "_rung", rung)
    assert loops.run(NAME) is True
    assert runs == ["run"] * 3
    assert sent == []
    loops._send(NAME)
    assert sent == [f"loop.{NAME}"]  # Nobody stays any more.


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker that keeps a runner of the loop."""
    monkeypatch.setattr(loops, "_kept", frozenset({NAME}))
    monkeypatch.setattr(loops, "_ending", threading.Event())
    monkeypatch.setattr(loops, "SAY_SECONDS", 0.05)
    yield
    loops.leave()


@pytest.mark.django_db(transaction=True)
def test_a_runner_that_is_kept_is_rung_until_its_worker_ends(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], kept: None
) -> None:
    passed = threading.Semaphore(0)
    a_pass(lambda: bool(passed.release()))
    thread = elsewhere(lambda: loops.run(NAME))
    assert passed.acquire(timeout=10)
    until = time.monotonic() + 3 * loops.STAY_SECONDS
    key = loops.RUNNER.format(NAME)
    while time.monotonic() < until:  # Longer than others stay, and it says so all the while.
        assert redis.client().exists(key)
    loops._send(NAME)
    assert passed.acquire(timeout=10)

    loops.leave()
    thread.join(10)
    assert not thread.is_alive()
    assert (runs, sent) == (["run", "run"], [])
    assert not redis.client().exists(key)


@pytest.mark.django_db(transaction=True)
def test_a_runner_that_is_kept_hands_over_when_its_time_is_up(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "BUSY_SECONDS", 0.1)
    assert loops.run(NAME) is True
    assert (runs, sent) == (["run"], [f"loop.{NAME}"])


@pytest.mark.django_db(transaction=True)
def test_a_runner_that_is_kept_goes_where_redis_is_away(
    no_redis: None, a_pass: Any, runs: list[str], kept: None
) -> None:
    assert loops.run(NAME) is True
    assert runs == ["run"]


@pytest.mark.django_db(transaction=True)
def test_a_wake_that_comes_as_the_runner_goes_sends_another_one(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(name: str, deadline: float) -> bool:
        loops._send(name)
        return False

    monkeypatch.setattr(loops, "_rung", deaf)
    assert loops.run(NAME) is True
    assert (runs, sent) == (["run"], [f"loop.{NAME}"])


@pytest.mark.django_db(transaction=True)
def test_a_second_runner_does_not_stay_and_a_killed_one_is_waited_for_no_longer_than_a_flag(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = loops.RUNNER.format(NAME)
    redis.client().set(key, "1", px=loops.FLAG_MILLISECONDS)  # As one leaves it that was killed while it stayed.
    monkeypatch.setattr(loops, "_rung", lambda name, deadline: pytest.fail("it stays"))
    assert loops.run(NAME) is True
    assert runs == ["run"]
    assert 0 < redis.client().pttl(key) <= loops.FLAG_MILLISECONDS


@pytest.mark.django_db(transaction=True)
def test_who_does_not_get_the_lock_leaves_the_wake_to_its_holder(
    redis_empty: None, a_pass: Any, runs: list[str], sent: list[str], lock_elsewhere: Any
) -> None:
    lock_elsewhere()
    loops._send(NAME)
    assert sent == [f"loop.{NAME}"]
    assert loops.run(NAME) is False
    assert redis.client().exists(loops.FLAG.format(NAME)) and not redis.client().exists(loops.RUNNER.format(NAME))
    assert (runs, sent) == ([], [f"loop.{NAME}"])  # Or the two would send each other messages until it is done.


@pytest.mark.django_db(transaction=True)
def test_a_pass_that_fails_leaves_nobody_to_ring_for(redis_empty: None, a_pass: Any, sent: list[str]) -> None:
    def fail() -> bool:
        raise ValueError("a bug")

    a_pass(fail)
    with pytest.raises(ValueError, match="a bug"):
        loops.run(NAME)
    loops._send(NAME)
    assert sent == [f"loop.{NAME}"]


@pytest.mark.django_db
def test_a_pass_that_asks_for_more_gets_it_at_once(redis_empty: None, a_pass: Any, runs: list[str]) -> None:
    a_pass(lambda: len(runs) < 3)

    loops.run(NAME)

    assert runs == ["run"] * 3


@pytest.mark.django_db(transaction=True)
def test_many_wakes_send_one_message_and_only_after_the_commit(redis_empty: None, sent: list[str]) -> None:
    with transaction.atomic():
        for _ in range(5):
            loops.wake(NAME)
        assert sent == []
    assert sent == [f"loop.{NAME}"]
    loops.wake(NAME)
    assert sent == [f"loop.{NAME}"]  # That runner has not come yet.


@pytest.mark.django_db(transaction=True)
def test_a_wake_of_what_was_rolled_back_is_not_sent_and_a_later_one_is(redis_empty: None, sent: list[str]) -> None:
    with transaction.atomic():
        with pytest.raises(RuntimeError), transaction.atomic():
            loops.wake(NAME)
            raise RuntimeError
        loops.wake(NAME)
    assert sent == [f"loop.{NAME}"]


@pytest.mark.django_db(transaction=True)
def test_a_message_that_could_not_be_sent_does_not_keep_the_next_one_back(
    redis_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery import current_app

    attempts: list[str] = []

    def fail(name: str, **_: Any) -> None:
        attempts.append(name)
        raise ConnectionError("the broker is away")

    monkeypatch.setattr(current_app, "send_task", fail)
    loops.wake(NAME)
    loops.wake(NAME)

    assert len(attempts) == 2


@pytest.mark.django_db(transaction=True)
def test_a_tick_runs_the_loop_without_redis_and_commands_do_not_fail(
    no_redis: None, a_pass: Any, runs: list[str], sent: list[str]
) -> None:
    with transaction.atomic():
        loops.wake(NAME)
    assert sent == []

    began = time.monotonic()
    loops._task(NAME)

    assert runs == ["run"]
    assert time.monotonic() - began < 1.0  # A dead Redis costs next to nothing.


@pytest.mark.django_db(transaction=True)
def test_the_next_pass_works_after_the_database_connection_was_killed(
    redis_empty: None, a_pass: Any, runs: list[str]
) -> None:
    def killed() -> bool:
        if len(runs) == 1:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pid = cursor.fetchone()[0]
            elsewhere(lambda: connections["default"].cursor().execute("SELECT pg_terminate_backend(%s)", [pid])).join()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return False

    a_pass(killed)
    loops._task(NAME)  # Loses its connection, and says so in the log only.
    loops._task(NAME)

    assert runs == ["run", "run"]


@pytest.mark.django_db
def test_a_lock_ends_even_when_its_pass_fails(redis_empty: None, a_pass: Any) -> None:
    def fail() -> bool:
        raise ValueError("a bug")

    a_pass(fail)
    with pytest.raises(ValueError, match="a bug"):
        loops.run(NAME)

    with locks.try_loop(NAME) as held:
        assert held


def test_transaction_locks_are_refused_outside_a_transaction(transactional_db: None) -> None:
    with pytest.raises(transaction.TransactionManagementError):
        locks.lock_in_transaction(locks.LockClass.QUOTA_TREE, 0)


@pytest.mark.django_db(transaction=True)
def test_while_redis_is_away_a_worker_goes_round_the_loops_by_itself(
    no_redis: None, a_pass: Any, runs: list[str], kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "ALONE_SECONDS", 0.01)
    monkeypatch.setattr(loops, "_passes", {NAME: loops._passes[NAME]})
    twice = threading.Event()

    def passed() -> bool:
        if len(runs) == 2:
            twice.set()
        return False

    a_pass(passed)
    watching = elsewhere(loops.watch)

    assert twice.wait(20)
    loops._ending.set()
    watching.join(20)
    assert not watching.is_alive()


@pytest.mark.django_db(transaction=True)
def test_while_redis_is_there_it_leaves_them_to_wakes_and_ticks(
    a_pass: Any, runs: list[str], kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ping(*command: object) -> object:
        asked.append(command)
        if len(asked) == 5:
            loops._ending.set()
        return b"PONG"

    monkeypatch.setattr(redis, "hint", ping)
    monkeypatch.setattr(loops, "ALONE_SECONDS", 0.01)
    loops.watch()
    assert asked == [("PING",)] * 5
    assert runs == []
