"""Backends run placements; one small protocol, one contract suite (tests/apps/execution/test_backends.py)."""

from collections.abc import Mapping
from functools import partial

from django.db import transaction

from apps.fleet.models import Cluster

from .agent import AgentBackend
from .base import Backend
from .fake import FakeBackend

BACKENDS: dict[str, Backend] = {Cluster.Kind.AGENTS: AgentBackend(), Cluster.Kind.FAKE: FakeBackend()}


def submit(nodes: Mapping[int, str]) -> None:
    """Tell the backends of these nodes (id → cluster kind) that they have something new to run or to stop."""
    by_kind: dict[str, list[int]] = {}
    for node_id, kind in nodes.items():
        by_kind.setdefault(kind, []).append(node_id)
    for kind, ids in by_kind.items():
        transaction.on_commit(partial(BACKENDS[kind].submit, ids))


__all__ = ["BACKENDS", "AgentBackend", "Backend", "FakeBackend", "submit"]
