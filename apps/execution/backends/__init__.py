"""Backends run placements; one small protocol, one contract suite (tests/apps/execution/test_backends.py)."""

from collections.abc import Iterable

from apps.fleet.models import Cluster, Node

from .agent import AgentBackend
from .base import Backend
from .fake import FakeBackend

BACKENDS: dict[str, Backend] = {Cluster.Kind.AGENTS: AgentBackend(), Cluster.Kind.FAKE: FakeBackend()}


def submit(node_ids: Iterable[int]) -> None:
    """Tell the backends of these nodes that they have something new to run or to stop."""
    by_kind: dict[str, list[int]] = {}
    for node_id, kind in Node.objects.filter(pk__in=list(node_ids)).values_list("pk", "cluster__kind"):
        by_kind.setdefault(kind, []).append(node_id)
    for kind, ids in by_kind.items():
        BACKENDS[kind].submit(ids)


__all__ = ["BACKENDS", "AgentBackend", "Backend", "FakeBackend", "submit"]
