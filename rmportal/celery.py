"""The Celery application. Its workers run the control loops; no tenant's work ever runs here."""

import os

from celery import Celery
from celery.signals import worker_ready

from .memory import settle

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")

app = Celery("rmportal")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Celery would close the database connection after every task. The loops look after theirs themselves
# (`apps.core.loops`), and a warm connection, with its prepared statements, saves milliseconds of every pass.
app.conf.CELERY_DB_REUSE_MAX = 1_000_000
app.autodiscover_tasks()


@worker_ready.connect
def _settle(**_: object) -> None:
    settle()
