"""Control loops: one runner at a time, woken by commits, guaranteed by beat.

A loop is a function that does one bounded pass and returns whether it wants to run again at once. The
runner holds the loop's advisory lock; whoever fails to get it leaves the wake flag standing, and the holder
looks at the flag again after it has let go. So no wake is lost while both live, and beat covers the rest.
What becomes due by the clock is asked for by the pass before it (`wake_at`).

After its pass a runner stays, for a moment or, where a worker asks for it (`stay`), until its time is up and the next
one takes over, and is rung for the next pass directly; only where nobody stays does a wake go through Celery, which
takes longer than many a pass. While Redis is away, neither wakes nor ticks arrive, and each worker goes round all loops
by itself (`watch`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from . import locks, redis

logger = logging.getLogger(__name__)

Pass = Callable[[], bool]
FLAG, RUNNER, BELL = "rmportal:wake:{}", "rmportal:runner:{}", "rmportal:bell:{}"
# A flag outlives a lost Celery message by this much at most, and so does the name of a runner that was killed; beat
# ticks meanwhile.
FLAG_MILLISECONDS = 2000
# How long a runner stays for the next wake where nobody has asked for more.
STAY_SECONDS = 0.1
# One that stays longer says so again after this long.
SAY_SECONDS = 1.0
# Flag a wake; 1 if it needs a message, as nobody stays to hear the bell. Nothing if a runner is on its way already.
FLAGGED = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then return 1 end
redis.call('LPUSH', KEYS[3], '1')
return 0
"""
# A runner that had stayed goes; 1 if there was a wake that it has not heard.
GONE = "redis.call('DEL', KEYS[2]) return redis.call('EXISTS', KEYS[1])"
# How often a process that finds Redis away looks at all loops itself.
ALONE_SECONDS = 1.0
# One Celery task gives its thread back after this long even when there is more to do.
BUSY_SECONDS = 20.0

# How far ahead a pass looks for what will be due: further than the time from one tick to the next.
AHEAD = timedelta(seconds=15)
_alarms: dict[str, tuple[datetime, threading.Timer]] = {}
_alarms_lock = threading.Lock()

# A loop rests for half as long as its last pass took: under load each pass then does more at once, which costs far
# less than many small ones; at rest the next wake comes later than that anyway.
REST_SECONDS_MAX = 0.2
_rest_until: dict[str, float] = {}
_rested = threading.Event()

_passes: dict[str, Pass] = {}

# The loops of which this process keeps a runner waiting, unless it is ending.
_kept: frozenset[str] = frozenset()
_ending = threading.Event()


def stay(names: Iterable[str]) -> None:
    """Keep a runner of each of these loops waiting in this process, which costs a thread for each."""
    global _kept
    _kept = frozenset(names)


def leave() -> None:
    """Let the runners that wait go: the process is about to end."""
    _ending.set()
    redis.hints(("LPUSH", BELL.format(name), "1") for name in _kept)


def watch() -> None:
    """Until this process ends: while Redis is away, run a pass of every loop in this thread, again and again.

    Nobody can be sent for then, so this takes the place of wakes and ticks.
    """
    while not _ending.wait(ALONE_SECONDS):
        if redis.hint("PING") is None:
            for name in _passes:
                _task(name, once=True)


def loop(name: str) -> Callable[[Pass], Pass]:
    """Register a pass as the loop `name` and its Celery task as `loop.<name>`."""

    def register(function: Pass) -> Pass:
        _passes[name] = function

        @shared_task(name=f"loop.{name}", ignore_result=True)
        def task() -> None:
            _task(name)

        return function

    return register


def wake(name: str) -> None:
    """Ask for a pass of the loop once the present transaction has committed; coalesced."""
    redis.hint_on_commit(_wake(name))


def wake_at(name: str, at: datetime) -> None:
    """Ask for a pass at that time, for work that becomes due without an event.

    It is a timer of this process and no more: every pass says again what it knows to be due within AHEAD, so only the
    earliest time is kept, and beat covers a process that ends before it.
    """
    with _alarms_lock:
        earlier, alarm = _alarms.get(name, (None, None))
        if alarm is not None and earlier is not None:
            if earlier <= at:
                return
            alarm.cancel()
        alarm = threading.Timer(max(0.0, (at - timezone.now()).total_seconds()), _ring, [name])
        alarm.daemon = True
        _alarms[name] = (at, alarm)
        alarm.start()


def _ring(name: str) -> None:
    with _alarms_lock:
        _alarms.pop(name, None)
    _send(name)


@cache
def _wake(name: str) -> redis.Hint:
    """The hint that wakes a loop."""
    return redis.Hint(
        lambda _: _script(FLAGGED, name, FLAG_MILLISECONDS), lambda answer: _message(name) if answer == 1 else None
    )


def _send(name: str) -> None:
    if redis.hint(*_script(FLAGGED, name, FLAG_MILLISECONDS)) == 1:
        _message(name)


def _script(script: str, name: str, *arguments: object) -> tuple[object, ...]:
    return ("EVAL", script, 3, *(key.format(name) for key in (FLAG, RUNNER, BELL)), *arguments)


def _message(name: str) -> None:
    from celery import current_app

    try:
        current_app.send_task(f"loop.{name}", retry=False)
    except Exception as error:
        redis.hint("DEL", FLAG.format(name))  # Or the next wakes would take that runner for on its way.
        logger.warning("Could not wake loop %s: %s", name, error)


def _task(name: str, *, once: bool = False) -> None:
    close_old_connections()
    try:
        run(name, once=once)
        if settings.PROGRESS_FILE:
            Path(settings.PROGRESS_FILE).touch()
    except (OperationalError, InterfaceError) as error:
        logger.warning("Loop %s lost the database, the next tick tries again: %s", name, error)
        connection.close()
    finally:
        close_old_connections()


def run(name: str, *, once: bool = False) -> bool:
    """Run passes of the loop until it is idle; returns False if another process holds it.

    With `once` it is a single pass, for a loop that runs another one in its own turn: a worker does the rest.
    """
    stays = not once and redis.hint("SET", RUNNER.format(name), "1", "NX", "PX", FLAG_MILLISECONDS) is not None
    ran = False
    try:
        ran = _run(name, 0.0 if once else BUSY_SECONDS, stays)
        return ran
    finally:
        # Who did not get the lock leaves the flag to its holder.
        if stays and (redis.hint(*_script(GONE, name)) == 1 or _keeps(name)) and ran:
            _hand_over(name)


def follow(name: str) -> None:
    """Run one pass of another loop in this thread; whoever runs it just now looks again instead."""
    if not run(name, once=True):
        redis.hint("SET", FLAG.format(name), "1", "PX", FLAG_MILLISECONDS)
        run(name, once=True)  # It may have looked for flags just before.


def _run(name: str, seconds: float, stays: bool) -> bool:
    deadline = time.monotonic() + seconds
    first = True
    while True:
        _rested.wait(max(0.0, _rest_until.get(name, 0.0) - time.monotonic()))
        with locks.try_loop(name) as held:
            again = held and _pass(name, stays)
        if not held and first:
            return False
        first = False
        # Whoever has taken the lock meanwhile looks at the flag as well.
        woken = again or (held and redis.hint("EXISTS", FLAG.format(name)))
        if not woken and not (stays and _rung(name, deadline)):
            return True
        if time.monotonic() > deadline:
            _hand_over(name)
            return True


def _pass(name: str, stays: bool) -> bool:
    heard = ("DEL", FLAG.format(name), BELL.format(name))
    redis.hints([heard, ("SET", RUNNER.format(name), "1", "PX", FLAG_MILLISECONDS)] if stays else [heard])
    began = time.monotonic()
    again = _passes[name]()
    ended = time.monotonic()
    _rest_until[name] = ended + min((ended - began) / 2, REST_SECONDS_MAX)
    return again


def _keeps(name: str) -> bool:
    return name in _kept and not _ending.is_set()


def _rung(name: str, deadline: float) -> bool:
    """Stay for the next wake; whether there was one."""
    until = deadline if _keeps(name) else time.monotonic() + STAY_SECONDS
    while (left := until - time.monotonic()) > 0:
        seconds = min(left, SAY_SECONDS)
        if redis.hint("BLPOP", BELL.format(name), seconds) is not None:
            return not _ending.is_set()
        if until - time.monotonic() > left - seconds / 2:
            return False  # Redis is away, and beat does the work.
        redis.hint("SET", RUNNER.format(name), "1", "PX", FLAG_MILLISECONDS)
    return False


def _hand_over(name: str) -> None:
    """Ask for another runner; the flag may stand for a message that came to nothing while the lock was held."""
    redis.hint("DEL", FLAG.format(name))
    _send(name)
