"""A deterministic backend for tests and for simulated nodes in load tests; nothing is executed.

What a command does is read from its words: `true`, `false`, `exit N`, `sleep SECONDS`, `echo WORDS`; anything
else succeeds at once. Time passes only when `pump(now)` is called, and all memory is in the rows, so a restart
changes nothing.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.core.actors import Actor
from apps.fleet.models import Cluster, Node
from apps.jobs.models import Placement
from apps.jobs.states import ATTEMPT_LIVE, AttemptState
from rmctl.agent.protocol import Report

from ..commands import append_log, take_reports
from .agent import AgentBackend

LIVE = sorted(ATTEMPT_LIVE)


def behaviour(group: dict[str, Any]) -> tuple[float, int, bytes]:
    """Duration in seconds, exit code and output of a member of this group."""
    words = list(group.get("command") or str(group.get("script") or "").split())
    match words[:2]:
        case ["false", *_]:
            return 0.0, 1, b""
        case ["exit", code]:
            return 0.0, int(code), b""
        case ["sleep", seconds]:
            return float(seconds), 0, b""
        case ["echo", *_]:
            return 0.0, 0, (" ".join(words[1:]) + "\n").encode()
        case _:
            return 0.0, 0, b""


class FakeBackend(AgentBackend):
    """Shares cancellation, observation and logs with the agents' backend: those are rows in both."""

    def submit(self, node_ids: Iterable[int]) -> None:
        self.pump(timezone.now(), list(node_ids))

    def pump(self, now: datetime, node_ids: Iterable[int] | None = None) -> int:
        """Let everything on the fake nodes happen that is due at `now`; returns how many reports that were."""
        nodes = Node.objects.filter(cluster__kind=Cluster.Kind.FAKE)
        if node_ids is not None:
            nodes = nodes.filter(pk__in=list(node_ids))
        total = 0
        for node in nodes:
            reports = self._due(node, now)
            if reports:
                take_reports(actor=Actor(label=f"fake:{node.name}", node_id=node.pk), node_id=node.pk, reports=reports)
            total += len(reports)
        return total

    def _due(self, node: Node, now: datetime) -> list[Report]:
        reports: list[Report] = []
        rows = Placement.objects.filter(node=node, state__in=LIVE).select_related("attempt__job").order_by("pk")
        for placement in rows:
            token = placement.attempt.token
            seconds, code, output = behaviour(placement.attempt.job.spec["groups"][placement.group])
            began = placement.started_at or now
            if placement.state == AttemptState.GRANTED and not placement.attempt.stop_reason:
                reports.append(Report(placement.pk, token, "started", now.timestamp(), enforced={"time": "fake"}))
            if placement.attempt.stop_reason:
                reports.append(Report(placement.pk, token, "ended", now.timestamp(), reason="stopped"))
            elif now >= began + timedelta(seconds=seconds):
                if output:
                    append_log(node_id=node.pk, placement_id=placement.pk, token=token, offset=0, data=output)
                reports.append(
                    Report(
                        placement.pk, token, "ended", now.timestamp(), exit_code=code, reason="exited",
                        log_size=len(output),
                    )
                )
        return reports
