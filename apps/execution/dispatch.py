"""What a node's agent should have: the difference between the rows and what it holds."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Q

from apps.core.errors import Conflict
from apps.jobs.models import Placement
from apps.jobs.states import ATTEMPT_LIVE, AttemptState
from apps.tenants.queries import secret_values
from rmctl.agent.protocol import Assignment, Desired, GpuShare, Stop

Key = tuple[int, int]  # placement, token
LIVE = sorted(ATTEMPT_LIVE)
START_BATCH = 200


def desired(node_id: int, held: set[Key]) -> Desired:
    """What to start and what to stop on a node whose agent holds `held`.

    Two short reads when there is nothing to do; specs are read only for what is to be started.
    """
    live: dict[Key, tuple[str, str]] = {}
    for pk, token, state, stop_reason in (
        Placement.objects.filter(node_id=node_id, state__in=LIVE)
        .order_by("pk")
        .values_list("pk", "attempt__token", "state", "attempt__stop_reason")
    ):
        live[pk, token] = (state, stop_reason)
    stop = [Stop(placement=pk, token=token, reason="not_wanted") for pk, token in held if (pk, token) not in live]
    stop += [
        Stop(placement=key[0], token=key[1], reason=reason)
        for key, (_, reason) in live.items()
        if reason and key in held
    ]
    wanted = [
        key[0]
        for key, (state, reason) in live.items()
        if key not in held and state == AttemptState.GRANTED and not reason
    ]
    return Desired(start=assignments(wanted[:START_BATCH]), stop=stop)


def never_started(node_id: int, held: set[Key]) -> list[int]:
    """Members that are to stop but were never taken by the agent: nothing of them runs, so they have ended."""
    return [
        pk
        for pk, token in Placement.objects.filter(
            ~Q(attempt__stop_reason=""), node_id=node_id, state=AttemptState.GRANTED
        ).values_list("pk", "attempt__token")
        if (pk, token) not in held
    ]


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
