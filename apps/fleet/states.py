"""Node lifecycle.

    ready ⇄ cordoned        no new work, what runs stays
    ready, cordoned → draining → cordoned   its work is moved away
    any live state → lost → ready           silent for too long; back when it speaks again
    any → removed                           ends for good; its credential is revoked
"""

from django.db import models


class NodeState(models.TextChoices):
    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"
    REMOVED = "removed"


LIVE = frozenset({NodeState.READY, NodeState.CORDONED, NodeState.DRAINING})

NODE_EDGES: dict[tuple[str, str], str] = {
    ("ready", "cordoned"): "node.cordoned",
    ("cordoned", "ready"): "node.uncordoned",
    ("draining", "ready"): "node.uncordoned",
    ("ready", "draining"): "node.draining",
    ("cordoned", "draining"): "node.draining",
    ("draining", "cordoned"): "node.drained",
    ("ready", "lost"): "node.lost",
    ("cordoned", "lost"): "node.lost",
    ("draining", "lost"): "node.lost",
    ("lost", "ready"): "node.returned",
    ("lost", "cordoned"): "node.returned",
    ("lost", "draining"): "node.returned",
    ("ready", "removed"): "node.removed",
    ("cordoned", "removed"): "node.removed",
    ("draining", "removed"): "node.removed",
    ("lost", "removed"): "node.removed",
}
