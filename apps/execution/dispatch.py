"""What a node's agent should have: the difference between the rows and what it holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apps.core.errors import Conflict
from apps.jobs.models import Placement
from apps.jobs.states import ATTEMPT_LIVE, AttemptState
from apps.tenants.queries import secret_values
from rmctl.agent.protocol import Assignment, Desired, GpuShare, Stop

Key = tuple[int, int]  # placement, token
LIVE = sorted(ATTEMPT_LIVE)
START_BATCH = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """What the agent lacks and holds too much, and members that were to stop before it ever took them."""

    message: Desired
    unborn: list[int]


def difference(node_id: int, held: set[Key]) -> Difference:
    """Compare the node's live rows with what its agent holds; one read when there is nothing to start."""
    live: set[Key] = set()
    stop: list[Stop] = []
    wanted: list[int] = []
    unborn: list[int] = []
    for pk, token, state, stop_reason in (
        Placement.objects.filter(node_id=node_id, state__in=LIVE)
        .order_by("pk")
        .values_list("pk", "attempt__token", "state", "attempt__stop_reason")
    ):
        live.add((pk, token))
        if (pk, token) in held:
            if stop_reason:
                stop.append(Stop(placement=pk, token=token, reason=stop_reason))
        elif state == AttemptState.GRANTED:
            (unborn if stop_reason else wanted).append(pk)
    stop += [Stop(placement=pk, token=token, reason="not_wanted") for pk, token in held - live]
    return Difference(Desired(start=assignments(wanted[:START_BATCH]), stop=stop), unborn)


def assignments(placement_ids: Iterable[int]) -> list[Assignment]:
    """The assignments of the placements, with their secrets; read in one query (and one per tenant with secrets)."""
    ids = list(placement_ids)
    if not ids:
        return []
    rows = (
        Placement.objects.filter(pk__in=ids)
        .select_related("attempt__job__tenant")
        .order_by("pk")
    )
    return [_assignment(placement) for placement in rows]


def _assignment(placement: Placement) -> Assignment:
    attempt = placement.attempt
    job = attempt.job
    spec = job.spec
    group = spec["groups"][placement.group]
    resources = group["resources"]
    named: dict[str, str] = group.get("secrets") or {}
    secrets: dict[str, str] = {}
    if named:
        try:
            values = secret_values(job.tenant_id, set(named.values()))
        except Conflict:
            values = {}
        secrets = {variable: values[name] for variable, name in named.items() if name in values}
    return Assignment(
        placement=placement.pk,
        token=attempt.token,
        job=job.pk,
        attempt=attempt.pk,
        name=job.name,
        tenant=job.tenant.slug,
        command=_command(group),
        group=group["name"],
        rank=placement.rank,
        size=sum(member["count"] for member in spec["groups"]),
        env=group.get("env") or {},
        secrets=secrets,
        cpu_millicores=placement.cpu_millicores,
        cpu_limit_millicores=resources["cpu_limit_millicores"],
        memory_bytes=placement.memory_bytes,
        storage_bytes=placement.storage_bytes,
        pids=resources["pids"],
        gpus=[GpuShare(index, milli) for index, milli in placement.gpus],
        time_limit_seconds=spec["time_limit"],
        image=group.get("image"),
        bundle=spec.get("bundle"),
        inputs=spec.get("inputs") or {},
    )


def _command(group: dict[str, Any]) -> list[str]:
    """The argv; a script is run by bash where the node has it, else by sh."""
    if group.get("command"):
        return list(group["command"])
    shell = 'if command -v bash >/dev/null 2>&1; then exec bash -c "$0"; else exec sh -c "$0"; fi'
    return ["sh", "-c", shell, group["script"]]
