"""Results of upstream tasks, for the arguments of the tasks that become ready."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection

from rmctl.spec import ArgumentError, CompiledTask

# Results of a mapped task are read together, and an expansion copies the arguments into each instance.
RESULTS_BYTES = 32 * 2**20
INPUT_BYTES = 2**20
EXPANSION_BYTES = 64 * 2**20

_JOIN = (
    "FROM unnest(%s::bigint[], %s::text[]) AS w(run_id, name) "
    "JOIN workflows_task t ON t.run_id = w.run_id AND t.name = w.name "
    "LEFT JOIN jobs_job j ON j.id = t.job_id AND j.state = 'succeeded' "
)


class TooLarge:
    """Stands for results that are too large to be read together."""


def load_results(wanted: Mapping[int, Iterable[str]], mapped: bool) -> dict[int, dict[str, Any]]:
    """Results by run and task: None where a task has none, for a mapped one the list in order.

    With `mapped`, some of the tasks may be mapped ones, whose total size is looked at first; those above
    RESULTS_BYTES come as `TooLarge`.
    """
    pairs = [(run, name) for run, names in wanted.items() for name in names]
    found: dict[int, dict[str, Any]] = {run: {} for run in wanted}
    if pairs and mapped:
        for run, name in _oversized(pairs):
            found[run][name] = TooLarge
        pairs = [(run, name) for run, name in pairs if name not in found[run]]
    if not pairs:
        return found
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT t.run_id, t.name, t.index, t.width, coalesce(t.result, j.result) {_JOIN} "
            "ORDER BY t.run_id, t.name, t.index",
            [[run for run, _ in pairs], [name for _, name in pairs]],
        )
        for run, name, index, width, raw in cursor.fetchall():
            value = None if raw is None else json.loads(raw)
            if index < 0:
                found[run][name] = value if width is None else [None] * width
            else:
                found[run][name][index] = value
    return found


def _oversized(pairs: list[tuple[int, str]]) -> list[tuple[int, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT t.run_id, t.name {_JOIN} WHERE t.index >= 0 "
            "GROUP BY t.run_id, t.name HAVING sum(octet_length(coalesce(t.result, j.result)::text)) > %s",
            [[run for run, _ in pairs], [name for _, name in pairs], RESULTS_BYTES],
        )
        return [(run, name) for run, name in cursor.fetchall()]


def size(value: Any) -> int:
    """Bytes of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def usable(task: CompiledTask, names: Iterable[str], results: Mapping[str, Any]) -> dict[str, Any]:
    """The results that a task reads. Raises ArgumentError when they are too large together."""
    known = {name: results.get(name) for name in names}
    for name, value in known.items():
        if value is TooLarge:
            raise ArgumentError(
                f"{task.id} reads the results of {name}, which are together larger than "
                f"{RESULTS_BYTES // 2**20} MiB: write files and pass their names."
            )
    return known
