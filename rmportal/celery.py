"""The Celery application. Its workers run the control loops; no tenant's work ever runs here."""

import logging
import os
import threading

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError

from apps.core.memory import settle

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")

# The loops that people wait for: a wake of theirs makes no detour through the queue.
KEPT = ("schedule", "advance")

app = Celery("rmportal")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Celery would close the database connection after every task. The loops look after theirs themselves
# (`apps.core.loops`), and a warm connection, with its prepared statements, saves milliseconds of every pass.
app.conf.CELERY_DB_REUSE_MAX = 1_000_000
app.autodiscover_tasks()


def _in_one_line(record: logging.LogRecord) -> bool:
    """Beat tells of every tick that Redis did not take with two call stacks: megabytes while Redis is away."""
    if record.exc_info and isinstance(record.exc_info[1], OperationalError):
        record.msg, record.args, record.exc_info = "A tick could not be sent: %s", (record.exc_info[1],), None
    return True


logging.getLogger("celery.beat").addFilter(_in_one_line)


@worker_ready.connect
def _settle(**_: object) -> None:
    from apps.core import loops

    loops.stay(KEPT)
    threading.Thread(target=loops.watch, name="watch", daemon=True).start()
    settle()


@worker_shutting_down.connect
def _leave(**_: object) -> None:
    from apps.core import loops

    # In a thread of its own: this is called where a signal has come, possibly within a call to Redis.
    threading.Thread(target=loops.leave).start()
