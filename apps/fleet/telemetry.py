"""The latest samples of nodes. They live in Redis alone: history worth keeping is rolled up elsewhere."""

import json
from collections.abc import Sequence
from typing import Any

from apps.core import redis

# A hash: node id → its latest sample as JSON.
LATEST_KEY = "rmportal:telemetry"
# A list for each node, newest first; that of a node that is gone goes by itself.
HISTORY_KEY = "rmportal:telemetry:{}"
HISTORY_SECONDS = 3600


def telemetry(node_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The latest sample of each node, where there is one; empty when Redis is away."""
    if not node_ids:
        return {}
    values = redis.hint("HMGET", LATEST_KEY, *node_ids)
    if not isinstance(values, list):
        return {}
    return {node_id: json.loads(raw) for node_id, raw in zip(node_ids, values, strict=True) if raw}


def telemetry_history(node_id: int) -> list[dict[str, Any]]:
    """The samples of the last minutes, oldest first."""
    values = redis.hint("LRANGE", HISTORY_KEY.format(node_id), 0, -1)
    return [json.loads(raw) for raw in reversed(values)] if isinstance(values, list) else []
