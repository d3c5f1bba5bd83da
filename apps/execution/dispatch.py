"""What a node's agent should have: the difference between the rows and what it holds."""

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from django.db.models import Count

from apps.core.errors import Conflict
from apps.core.rows import fetch
from apps.fleet.commands import Replaced, require_newest
from apps.jobs.models import Placement
from apps.jobs.requests import datasets_of
from apps.jobs.states import ATTEMPT_LIVE, AttemptState
from apps.tenants.queries import secret_values
from apps.tenants.stored import optional, stored_values
from rmctl.agent.protocol import Assignment, Desired, GpuShare, SavedFiles, Stop
from rmctl.spec.tasks import OPTIONAL_VARIABLE, VARIABLE

from .models import Checkpoint
from .queries import saved_before

logger = logging.getLogger(__name__)

Key = tuple[int, int]  # placement, token
LIVE = sorted(map(str, ATTEMPT_LIVE))
START_BATCH = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """What the agent lacks and holds too much.

    `unborn` were to stop before it ever took them; `unstartable` say why they cannot be started at all; `vanished` were
    running there, but the agent does not hold them any more.
    """

    message: Desired
    unborn: list[int]
    unstartable: dict[int, str]
    vanished: list[int]


HELD = (
    "SELECT p.id, a.token, p.state, a.stop_reason, (j.spec->>'notice')::float8, n.connection FROM jobs_placement p "
    "JOIN jobs_attempt a ON a.id = p.attempt_id JOIN jobs_job j ON j.id = a.job_id "
    "JOIN fleet_node n ON n.id = p.node_id WHERE p.node_id = %s AND p.state = ANY(%s) ORDER BY p.id"
)


def difference(
    node_id: int, connection: int, held: AbstractSet[Key], over: AbstractSet[Key] = frozenset()
) -> Difference:
    """Compare the node's live rows with what its agent holds; one read when there is nothing to start.

    `over` are those of the held whose process has ended already. Raises Replaced when there is anything to say and
    `connection` is not the node's newest.
    """
    live: set[Key] = set()
    stop: list[Stop] = []
    wanted: list[int] = []
    unborn: list[int] = []
    vanished: list[int] = []
    newest: int | None = None
    # The connection is the node's, so the same in each row.
    for pk, token, state, stop_reason, notice, newest in fetch(HELD, [node_id, LIVE]):  # noqa: B007
        live.add((pk, token))
        if (pk, token) in held:
            if stop_reason and (pk, token) not in over:
                stop.append(_stop(pk, token, stop_reason, notice))
        elif state == AttemptState.GRANTED:
            (unborn if stop_reason else wanted).append(pk)
        else:
            vanished.append(pk)
    stop += [Stop(placement=pk, token=token, reason="not_wanted") for pk, token in held - live - over]
    if newest is None and stop:
        require_newest(node_id, connection)
    elif newest not in (None, connection):
        raise Replaced(f"A newer connection speaks for node {node_id}.")
    start, unstartable = assignments(wanted[:START_BATCH])
    return Difference(Desired(start=start, stop=stop), unborn, unstartable, vanished)


def _stop(placement: int, token: int, reason: str, notice: float | None) -> Stop:
    """Ask a process to end; one that is evicted has its job's notice to write a checkpoint."""
    if reason == "preempted" and notice is not None:
        return Stop(placement=placement, token=token, reason=reason, grace_seconds=notice)
    return Stop(placement=placement, token=token, reason=reason)


def assignments(placement_ids: Sequence[int]) -> tuple[list[Assignment], dict[int, str]]:
    """The assignments of the placements with their secrets, and why some cannot be made.

    Read in one query, one per tenant with secrets, and one where some are not a first attempt.
    """
    if not placement_ids:
        return [], {}
    rows = [
        _Row(*plain, gpus=msgspec.json.decode(gpus), spec=msgspec.json.decode(spec))
        for *plain, gpus, spec in fetch(ASSIGNED, [list(placement_ids)])
    ]
    wanted: dict[int, set[str]] = {}
    for row in rows:
        wanted.setdefault(row.tenant_id, set()).update((row.specified.get("secrets") or {}).values())
    known: dict[int, dict[str, str]] = {}
    for tenant_id, names in wanted.items():
        try:
            known[tenant_id] = {**secret_values(tenant_id, names), **stored_values(tenant_id, names)} if names else {}
        except Conflict as error:
            logger.warning("Secrets of tenant %s: %s", tenant_id, error)
            known[tenant_id] = {}
    sizes = _sizes(rows)
    saved = saved_before((row.job, row.group, row.rank, row.token) for row in rows)
    found, missing = [], {}
    for row in rows:
        values = known[row.tenant_id]
        named = set((row.specified.get("secrets") or {}).values())
        absent = sorted(name.replace(":", " ") for name in named - values.keys() if not optional(name))
        if absent:
            missing[row.pk] = f"The tenant has no readable secret {', '.join(absent)}: set it again."
        else:
            found.append(_assignment(row, values, sizes[row.attempt], saved.get((row.job, row.group, row.rank))))
    return found, missing


ASSIGNED = (
    'SELECT p.id, p."group", p.rank, p.cpu_millicores, p.memory_bytes, p.storage_bytes, a.id, a.token, j.id, j.name, '
    "t.id, t.slug, p.gpus, j.spec FROM jobs_placement p JOIN jobs_attempt a ON a.id = p.attempt_id "
    "JOIN jobs_job j ON j.id = a.job_id JOIN tenants_tenant t ON t.id = j.tenant_id "
    "WHERE p.id = ANY(%s::bigint[]) ORDER BY p.id"
)


class _Row(NamedTuple):
    """What an assignment is made of, in the order of ASSIGNED; whole objects would cost more than the query."""

    pk: int
    group: int
    rank: int
    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    attempt: int
    token: int
    job: int
    name: str
    tenant_id: int
    tenant: str
    gpus: list[tuple[int, int]]
    spec: dict[str, Any]

    @property
    def specified(self) -> dict[str, Any]:
        """The group of the spec that this is a member of."""
        group: dict[str, Any] = self.spec["groups"][self.group]
        return group


def _sizes(rows: Sequence[_Row]) -> dict[int, int]:
    """How many members each attempt has; counted only of jobs that start with fewer than all of them too."""
    shrunk = {row.attempt for row in rows if any(group.get("min_count") for group in row.spec["groups"])}
    counted = Placement.objects.filter(attempt__in=shrunk).order_by().values_list("attempt").annotate(Count("pk"))
    sizes = dict(counted) if shrunk else {}
    return {
        row.attempt: sizes.get(row.attempt) or sum(group["count"] for group in row.spec["groups"]) for row in rows
    }


def _assignment(row: _Row, values: Mapping[str, str], size: int, saved: Checkpoint | None) -> Assignment:
    group = row.specified
    resources, named = group["resources"], group.get("secrets") or {}
    return Assignment(
        placement=row.pk,
        token=row.token,
        job=row.job,
        attempt=row.attempt,
        name=row.name,
        tenant=row.tenant,
        command=_command(group),
        group=group["name"],
        rank=row.rank,
        size=size,
        env=group.get("env") or {},
        secrets={variable: values[name] for variable, name in named.items() if name in values},
        masked=[variable for variable, name in named.items() if not name.startswith((VARIABLE, OPTIONAL_VARIABLE))],
        cpu_millicores=row.cpu_millicores,
        cpu_limit_millicores=resources["cpu_limit_millicores"],
        memory_bytes=row.memory_bytes,
        storage_bytes=row.storage_bytes,
        pids=resources["pids"],
        gpus=[GpuShare(index, milli) for index, milli in row.gpus],
        time_limit_seconds=row.spec["time_limit"],
        image=group.get("image"),
        bundle=row.spec.get("bundle"),
        inputs=row.spec.get("inputs") or {},
        saved=SavedFiles(saved.sha256, saved.size) if saved is not None else None,
        datasets=datasets_of(row.spec["intent"]),
    )


def _command(group: dict[str, Any]) -> list[str]:
    """The argv. A script is for bash; where there is none, on a node or in an image, the agent takes sh."""
    return list(group["command"]) if group.get("command") else ["bash", "-c", group["script"]]
