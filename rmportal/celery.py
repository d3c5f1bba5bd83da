"""The Celery application. Its workers run the control loops; no tenant's work ever runs here."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")

app = Celery("rmportal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
