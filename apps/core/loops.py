"""Control loops: one runner at a time, woken by commits, guaranteed by beat.

A loop is a function that does one bounded pass and returns whether it wants to run again at once. The
runner holds the loop's advisory lock; whoever fails to get it leaves the wake flag standing, and the holder
looks at the flag again after it has let go. So no wake is lost while both live, and beat covers the rest.
What becomes due by the clock is asked for by the pass before it (`wake_at`).
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.utils import timezone

from . import locks, redis

logger = logging.getLogger(__name__)

Pass = Callable[[], bool]
FLAG = "rmportal:wake:{}"
# A flag outlives a lost Celery message by this much at most; beat ticks meanwhile.
FLAG_MILLISECONDS = 2000
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
_senders: dict[str, Callable[[], None]] = {}


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
    sender = _senders.setdefault(name, partial(_send, name))
    if any(function is sender for _, function, *_ in connection.run_on_commit):
        return
    transaction.on_commit(sender)


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


def _send(name: str) -> None:
    if redis.hint("SET", FLAG.format(name), "1", "NX", "PX", FLAG_MILLISECONDS) is None:
        return  # A runner is already on its way (or Redis is away, and beat will do it).
    from celery import current_app

    try:
        current_app.send_task(f"loop.{name}", retry=False)
    except Exception as error:
        redis.hint("DEL", FLAG.format(name))  # Or the next wakes would take that runner for on its way.
        logger.warning("Could not wake loop %s: %s", name, error)


def _task(name: str) -> None:
    close_old_connections()
    try:
        run(name)
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
    deadline = time.monotonic() + (0.0 if once else BUSY_SECONDS)
    while True:
        _rested.wait(max(0.0, _rest_until.get(name, 0.0) - time.monotonic()))
        with locks.try_loop(name) as held:
            if not held:
                return False
            redis.hint("DEL", FLAG.format(name))
            began = time.monotonic()
            again = _passes[name]()
            ended = time.monotonic()
            _rest_until[name] = ended + min((ended - began) / 2, REST_SECONDS_MAX)
        if not again and not redis.hint("EXISTS", FLAG.format(name)):
            return True
        if time.monotonic() > deadline:
            # The flag may stand for a message that came while the lock was held, and so came to nothing.
            redis.hint("DEL", FLAG.format(name))
            _send(name)
            return True
