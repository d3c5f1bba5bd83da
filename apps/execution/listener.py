"""What this web process hears from agents, written down once a second for all of them together."""

import asyncio
import json
import logging
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from channels.db import database_sync_to_async
from django.db import Error, close_old_connections
from django.utils import timezone

from apps.core import redis
from apps.core.actors import Actor
from apps.events.live import publish_data
from apps.fleet import commands as fleet
from apps.fleet.models import Node
from apps.fleet.states import NodeState
from apps.fleet.telemetry import HISTORY_KEY, HISTORY_SECONDS, LATEST_KEY
from rmctl.agent.protocol import Beat

from .commands import intake

if TYPE_CHECKING:
    from .consumers import AgentConsumer

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
HISTORY_SAMPLES = 300


class Listener:
    """Collects beats; `run` writes last-seen times, leases and telemetry in a few statements for all nodes."""

    def __init__(self) -> None:
        self._connections: dict[int, AgentConsumer] = {}
        # The newest beat of each node, with the number of the connection that it came on.
        self._beats: dict[int, tuple[int, Beat]] = {}

    def arrived(self, node_id: int, consumer: "AgentConsumer") -> None:
        """A node has connected; its older connection in this process is closed, one elsewhere closes by the hint."""
        other = self._connections.get(node_id)
        older, newer = (consumer, other) if other and other.connection > consumer.connection else (other, consumer)
        self._connections[node_id] = newer
        if older is not None:
            asyncio.get_running_loop().create_task(older.replaced())

    def left(self, node_id: int, consumer: "AgentConsumer") -> None:
        """A connection has ended."""
        if self._connections.get(node_id) is consumer:
            del self._connections[node_id]

    def heard(self, node_id: int, connection: int, beat: Beat) -> None:
        """A beat has come; the newest one of the newest connection counts."""
        if node_id not in self._beats or self._beats[node_id][0] <= connection:
            self._beats[node_id] = (connection, beat)

    async def run(self) -> None:
        """Write down what was heard, for ever; started with the web process."""
        while True:
            heard, self._beats = self._beats, {}
            try:
                await database_sync_to_async(self._write)(heard)
            except Error as error:
                logger.warning("Beats could not be written down: %s", error)
            except Exception:  # Whatever one beat holds: if this loop ended, every node would be taken for lost.
                logger.exception("Beats could not be written down.")
            await asyncio.sleep(INTERVAL_SECONDS)  # The period of the loop itself.

    def _write(self, heard: dict[int, tuple[int, Beat]]) -> None:
        close_old_connections()
        intake.listening(now=timezone.now())
        seen = fleet.nodes_seen({node_id: connection for node_id, (connection, _) in heard.items()}) if heard else []
        if not seen:
            return
        beats = {node_id: heard[node_id][1] for node_id in seen}
        clusters: dict[int, dict[str, object]] = {}
        rows = Node.objects.filter(pk__in=list(beats)).values_list("pk", "name", "state", "cluster_id")
        for node_id, name, state, cluster_id in rows:
            # A machine that only slept comes back on its old connection, without a greeting.
            if state == NodeState.LOST:
                fleet.mark_returned(actor=Actor(label=f"agent:{name}", node_id=node_id), node_id=node_id)
            sample = msgspec.to_builtins(beats[node_id].telemetry)
            clusters.setdefault(cluster_id, {})[str(node_id)] = sample
        intake.renew((node_id, item) for node_id, beat in beats.items() for item in beat.held)
        intake.checkpoints((node_id, item) for node_id, beat in beats.items() for item in beat.checkpoints)
        encoded = {node_id: json.dumps(sample) for samples in clusters.values() for node_id, sample in samples.items()}
        actions: list[tuple[object, ...]] = [("HSET", LATEST_KEY, *chain.from_iterable(encoded.items()))]
        for node_id, text in encoded.items():
            history = HISTORY_KEY.format(node_id)
            actions += [
                ("LPUSH", history, text),
                ("LTRIM", history, 0, HISTORY_SAMPLES - 1),
                ("EXPIRE", history, HISTORY_SECONDS),
            ]
        redis.hints(actions)
        for cluster_id, samples in clusters.items():
            publish_data(f"telemetry:{cluster_id}", samples)


listener = Listener()
