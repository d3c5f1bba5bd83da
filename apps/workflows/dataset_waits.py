"""Tasks that wait for datasets: from which moment on updates count, and who goes on when one is updated.

A wait is a row with the ids of its datasets. An update of one of them brings it due in its own transaction; the pass
then looks at the events, which alone decide. A wait that begins while an update commits is seen by neither: that is
found by its second look.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection

from rmctl.runner import RESULT_BYTES
from rmctl.spec.datasets import uris, words
from rmctl.spec.kinds import WaitForDataset
from rmctl.spec.moments import moment_in
from rmctl.spec.quantities import parse_seconds

from . import moved
from .dataset_models import Dataset
from .models import Run, Wait
from .results import size

# So long a condition is told in words; a longer one may name a hundred datasets.
WORDS_CHARACTERS = 300
NAMED = 3


def told(options: WaitForDataset) -> str:
    """What is waited for, in a sentence."""
    text = words(options.datasets)
    if len(text) <= WORDS_CHARACTERS:
        return text
    return f"what it waits for of {len(set(uris(options.datasets)))} datasets"


def silent(options: WaitForDataset, updates: Collection[str]) -> str:
    """The datasets without an update, the first few by name."""
    names = [uri for uri in dict.fromkeys(uris(options.datasets)) if uri not in updates]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def since_of(
    run: Run, options: WaitForDataset, inputs: Mapping[str, Any], zone: ZoneInfo, now: datetime
) -> datetime:
    """The moment from which on updates count for this run. Raises BadValue and OverflowError."""
    moments = {"data_interval_end": run.data_interval_end, "data_interval_start": run.data_interval_start}
    since: datetime = moments.get(options.since) or run.created_at
    if inputs.get("since") is not None:
        since = moment_in(inputs["since"], zone, now)
    if inputs.get("before") is not None:
        since -= timedelta(seconds=parse_seconds(inputs["before"]))
    return since


def updated_since(tenant_id: int, options: WaitForDataset, since: datetime) -> dict[str, dict[str, Any]]:
    """The latest update of each of the datasets that has one since then, by URI, in the words of
    `triggering_dataset_events`; without `extra` where all of them together are too large for a result."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.uri, e.at, e.run_id, e.task, e.source, e.extra FROM workflows_dataset d "
            "CROSS JOIN LATERAL (SELECT * FROM workflows_datasetevent v WHERE v.dataset_id = d.id AND v.at >= %s "
            " ORDER BY v.at DESC LIMIT 1) e WHERE d.tenant_id = %s AND d.uri = ANY(%s) ORDER BY d.uri",
            [since, tenant_id, list(set(uris(options.datasets)))],
        )
        rows = cursor.fetchall()
    found: dict[str, dict[str, Any]] = {}
    for uri, at, run, task, source, extra in rows:
        whence = {"source_run_id": run, "source_task_id": task, "source": source}
        found[uri] = {"uri": uri, "timestamp": at.isoformat(), "extra": json.loads(extra), **whence}
    if size(found) > RESULT_BYTES:
        for update in found.values():
            del update["extra"]
    return found


def subscribe(datasets: Iterable[int]) -> None:
    """From now on updates of these datasets look for who waits for them."""
    Dataset.objects.filter(pk__in=set(datasets), awaited=False).update(awaited=True)


def bring_due(datasets: Collection[int], now: datetime) -> None:
    """Bring due what waits for these datasets, in the transaction that records their update."""
    with connection.cursor() as cursor:
        # In one order, as two updates may concern the same waits.
        cursor.execute(
            "WITH found AS (SELECT task_id FROM workflows_wait WHERE datasets && %s::bigint[] "
            "ORDER BY task_id FOR NO KEY UPDATE) UPDATE workflows_wait w SET due_at = %s FROM found "
            "WHERE w.task_id = found.task_id RETURNING w.task_id",
            [list(datasets), now],
        )
        tasks = [row[0] for row in cursor.fetchall()]
    if tasks:
        moved.tell_waits(tasks)


def awaited_by_tasks(dataset_id: int) -> bool:
    """Whether a task waits for this dataset at present."""
    return Wait.objects.filter(datasets__overlap=[dataset_id]).exists()
