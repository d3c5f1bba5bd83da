"""Bare nodes that run `rmctl agent`: their connection compares rows with what the agent holds; this wakes it."""

from collections.abc import Iterable

from apps.events.live import publish
from apps.jobs.commands import stop_placements
from apps.jobs.models import Placement
from apps.jobs.states import AttemptState

from ..queries import LogPiece, read_log


class AgentBackend:
    """See `apps.execution.consumers`, which does the work in the web process that holds the connection."""

    def submit(self, node_ids: Iterable[int]) -> None:
        publish(f"node:{node_id}" for node_id in node_ids)

    def cancel(self, placement_ids: Iterable[int], reason: str) -> None:
        rows = list(Placement.objects.filter(pk__in=list(placement_ids)).values_list("attempt_id", "node_id"))
        stop_placements({attempt for attempt, _ in rows}, reason)
        self.submit({node for _, node in rows})

    def observe(self, node_id: int) -> set[tuple[int, int]]:
        running = Placement.objects.filter(node_id=node_id, state=AttemptState.RUNNING)
        return set(running.values_list("pk", "attempt__token"))

    def logs(self, placement_id: int, offset: int, limit: int) -> LogPiece:
        return read_log(placement_id, offset, limit)
