"""The Celery application. Its workers run the control loops; no tenant's work ever runs here."""

import os

from celery import Celery
from celery.signals import worker_ready

from .memory import settle

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")

app = Celery("rmportal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def _settle(**_: object) -> None:
    settle()
