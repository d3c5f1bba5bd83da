"""Lifecycles of services and rollouts.

Service:

    active → stopped    no replicas; its revisions stay
    stopped → active    deployed again

Rollout:

    rolling → complete      all replicas are of its revision and ready
    rolling → failed        without progress for too long; the revision before goes on, if there is one
    rolling → superseded    another one began
    rolling → stopped       its service was stopped
    failed → complete       there was no revision before, and it came up after all
"""

from django.db import models


class ServiceState(models.TextChoices):
    ACTIVE = "active"
    STOPPED = "stopped"


class RolloutState(models.TextChoices):
    ROLLING = "rolling"
    COMPLETE = "complete"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"


SERVICE_EDGES: dict[tuple[str, str], str] = {
    ("active", "stopped"): "service.stopped",
    ("stopped", "active"): "service.started",
}

ROLLOUT_EDGES: dict[tuple[str, str], str] = {
    ("rolling", "complete"): "rollout.complete",
    ("failed", "complete"): "rollout.complete",
    ("rolling", "failed"): "rollout.failed",
    ("rolling", "superseded"): "rollout.superseded",
    ("rolling", "stopped"): "rollout.stopped",
}
