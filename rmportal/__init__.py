"""The Django project: settings, URLs, ASGI and Celery. Imports every app; no app imports it."""

from .celery import app as celery_app

__all__ = ["celery_app"]
