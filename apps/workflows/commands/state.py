"""State of workflows and runs: values that tasks and people keep under keys, with compare-and-set.

A write is one guarded statement on one row, so of any number of writers that expect the same version exactly one
succeeds. Lock order: placement (of a task that writes) → the value's row.
"""

from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.utils import timezone
from rest_framework.response import Response

from apps.core import idempotency
from apps.core.actors import Actor
from apps.core.bulk import as_json
from apps.core.errors import Conflict, Invalid, NotFound
from apps.events.record import Fact, record
from apps.execution.commands import live_placement
from rmctl.names import STATE_KEY as KEY
from rmctl.names import STATE_KEYS_MAX as KEYS_MAX
from rmctl.names import STATE_VALUE_BYTES as VALUE_BYTES
from rmctl.spec.errors import describe
from rmctl.spec.values import canonical_json, json_faults

from .. import policies
from ..models import StateValue, Task
from ..states import TASK_IN_FLIGHT

_VERSION = "nextval(pg_get_serial_sequence('workflows_statevalue', 'id'))"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose state: of a workflow, or of one of its runs."""

    tenant_id: int
    workflow_id: int
    run_id: int | None = None

    @property
    def condition(self) -> tuple[str, int]:
        """What finds its rows."""
        if self.run_id is not None:
            return "run_id = %s", self.run_id
        return "run_id IS NULL AND workflow_id = %s", self.workflow_id

    @property
    def noun(self) -> str:
        """Whose it is, for people."""
        return f"run {self.run_id}" if self.run_id is not None else f"workflow {self.workflow_id}"

    def value(self, key: str) -> StateValue | None:
        """The value under a key."""
        rows = StateValue.objects.filter(workflow=self.workflow_id, run=self.run_id, key=key)
        return rows.first()


def scope_of(actor: Actor, action: str | None, *, workflow_id: int | None = None, run_id: int | None = None) -> Scope:
    """The scope that a person names and may see, or do `action` with. Raises NotFound, Forbidden."""
    if run_id is not None:
        run = policies.runs.get(actor, action, pk=run_id)
        return Scope(run.tenant_id, run.workflow_id, run.pk)
    workflow = policies.workflows.get(actor, action, pk=workflow_id)
    return Scope(workflow.tenant_id, workflow.pk)


@transaction.atomic
def set_state(
    *,
    actor: Actor,
    key: str,
    value: Any,
    workflow_id: int | None = None,
    run_id: int | None = None,
    expected: int | None = None,
) -> StateValue:
    """Keep a JSON value for a workflow or for a run. With `expected` only where the value has this version, 0 standing
    for none yet; raises Conflict (`version_conflict`) otherwise, and Invalid for a key or value that cannot be kept."""
    scope = scope_of(actor, "set_state", workflow_id=workflow_id, run_id=run_id)
    if _set(actor, scope, key, value, expected, actor.label, {}) is None:
        raise _conflict(scope, key, expected)
    found = scope.value(key)
    assert found is not None
    return found


@transaction.atomic
def delete_state(
    *, actor: Actor, key: str, workflow_id: int | None = None, run_id: int | None = None, expected: int | None = None
) -> None:
    """Remove a value, with `expected` only where it has this version. Raises NotFound, Conflict."""
    scope = scope_of(actor, "set_state", workflow_id=workflow_id, run_id=run_id)
    if not _delete(actor, scope, key, expected, {}):
        if scope.value(key) is None:
            raise NotFound(f"The state of {scope.noun} has no key {key}.")
        raise _conflict(scope, key, expected)


@transaction.atomic
def task_state(
    *,
    actor: Actor,
    node_id: int,
    placement_id: int,
    token: int,
    scope: str,
    operation: str,
    key: str = "",
    value: Any = None,
    expected: int | None = None,
    request: str = "",
) -> dict[str, Any]:
    """What a task on a node asks of the state of its own workflow (`scope` workflow) or run, and of no other.

    `operation` is get, list, set or delete. The answer has `found`, `value` and `version`, and `written`: false where
    the version was not the expected one; a value that was just written is not said again. The same `request` again
    gives the same answer and changes nothing. Raises Conflict for an attempt that is not live any more, or whose task
    was cleared meanwhile: what is left of it on a node that came back writes nothing.
    """
    writes = operation in ("set", "delete")
    # While the placement is locked, no later attempt of its job can begin.
    placement = live_placement(node_id, placement_id, token, lock=writes)
    in_flight = Task.objects.filter(state__in=sorted(TASK_IN_FLIGHT), restart=False)
    own = in_flight.select_related("run").filter(job_id=placement.attempt.job_id).first()
    if own is None:
        raise Conflict("This job is not (any more) that of a task in flight, so it has no state.", code="no_task")
    chosen = Scope(own.run.tenant_id, own.run.workflow_id, own.run_id if scope == "run" else None)
    if operation == "list":
        return {"keys": list(_rows(chosen).values_list("key", flat=True)), "written": True}
    if operation == "get":
        return {**_answer(chosen, key), "written": True}
    by = f"{own} of run {own.run_id}"
    facts = {"run": own.run_id, "task": str(own), "job": placement.attempt.job_id}
    kept = None
    if request:
        print_ = f"{placement_id}:{token}:{scope}:{operation}:{key}"[:64]
        kept, answered = idempotency.claim(actor, f"state:{placement_id}:{token}:{request}", print_)
        if answered is not None:
            return dict(answered.data)
    version = 0
    if operation == "set":
        version = _set(actor, chosen, key, value, expected, by, facts) or 0
        written = version > 0
    else:
        written = _delete(actor, chosen, key, expected, facts)
    answer: dict[str, Any] = {"found": version > 0, "value": None, "version": version, "written": True}
    if not written:
        answer = {**_answer(chosen, key), "written": operation == "delete" and expected is None}
    if kept is not None:
        idempotency.keep(kept, Response(answer))
    return answer


def _rows(scope: Scope) -> Any:
    return StateValue.objects.filter(workflow=scope.workflow_id, run=scope.run_id).order_by("key")


def _answer(scope: Scope, key: str) -> dict[str, Any]:
    found = scope.value(key)
    if found is None:
        return {"found": False, "value": None, "version": 0}
    return {"found": True, "value": found.value, "version": found.version}


def _checked(key: str, value: Any) -> bytes:
    if not KEY.fullmatch(key):
        message = f"{describe(key)} is not a key: letters, digits, _ . : and -, at most 200."
        raise Invalid.field("key", message, "bad_id")
    faults = json_faults(value)
    if faults:
        where = f"value.{faults[0]['field']}" if faults[0]["field"] else "value"
        raise Invalid.field(where, faults[0]["message"], faults[0]["code"])
    text = canonical_json(value)
    if len(text) > VALUE_BYTES:
        raise Invalid.field(
            "value",
            f"{key} has {len(text)} bytes as JSON; a value has at most {VALUE_BYTES // 1024} KiB: keep large data in "
            "a file (rmctl.artifact) and its name here.",
            "too_large",
        )
    return text


def _set(
    actor: Actor, scope: Scope, key: str, value: Any, expected: int | None, by: str, facts: dict[str, Any]
) -> int | None:
    """The new version, or None where the present one is not the expected. Raises Invalid."""
    size = len(_checked(key, value))
    version = None
    now = timezone.now()
    condition, pk = scope.condition
    with connection.cursor() as cursor:
        if expected != 0:
            guard = "" if expected is None else " AND version = %s"
            cursor.execute(
                f"UPDATE workflows_statevalue SET value = %s::jsonb, size = %s, version = {_VERSION}, updated_at = %s, "
                f"updated_by = %s WHERE {condition} AND key = %s{guard} RETURNING version",
                [as_json(value), size, now, by[:250], pk, key, *([] if expected is None else [expected])],
            )
            version = _first(cursor)
        if version is None and not expected:
            version = _insert(cursor, scope, key, value, size, now, by, replace=expected is None)
    if version is not None:
        _record(actor, "state.set", scope, {"key": key, "version": version, "size": size, **facts})
    return version


def _insert(
    cursor: Any, scope: Scope, key: str, value: Any, size: int, now: Any, by: str, *, replace: bool
) -> int | None:
    """A new row, or where another writer was first and `replace`, in its place. Raises Invalid for too many keys."""
    condition, pk = scope.condition
    cursor.execute(f"SELECT count(*) FROM workflows_statevalue WHERE {condition}", [pk])
    if cursor.fetchone()[0] >= KEYS_MAX:
        raise Invalid.field("key", f"the state of {scope.noun} has {KEYS_MAX} keys already: delete some.", "too_many")
    target = "(run_id, key) WHERE run_id IS NOT NULL" if scope.run_id else "(workflow_id, key) WHERE run_id IS NULL"
    action = (
        f"UPDATE SET value = excluded.value, size = excluded.size, version = {_VERSION}, "
        "updated_at = excluded.updated_at, updated_by = excluded.updated_by"
        if replace
        else "NOTHING"
    )
    cursor.execute(
        "INSERT INTO workflows_statevalue "
        "(tenant_id, workflow_id, run_id, key, value, size, version, updated_at, updated_by) "
        f"VALUES (%s, %s, %s, %s, %s::jsonb, %s, {_VERSION}, %s, %s) "
        f"ON CONFLICT {target} DO {action} RETURNING version",
        [scope.tenant_id, scope.workflow_id, scope.run_id, key, as_json(value), size, now, by[:250]],
    )
    return _first(cursor)


def _delete(actor: Actor, scope: Scope, key: str, expected: int | None, facts: dict[str, Any]) -> bool:
    condition, pk = scope.condition
    guard = "" if expected is None else " AND version = %s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM workflows_statevalue WHERE {condition} AND key = %s{guard} RETURNING version",
            [pk, key, *([] if expected is None else [expected])],
        )
        version = _first(cursor)
    if version is None:
        return False
    _record(actor, "state.deleted", scope, {"key": key, "version": version, **facts})
    return True


def _first(cursor: Any) -> int | None:
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def _record(actor: Actor, verb: str, scope: Scope, facts: dict[str, Any]) -> None:
    """Who wrote what key when; never the value."""
    kind, pk = ("run", scope.run_id) if scope.run_id is not None else ("workflow", scope.workflow_id)
    topics = (f"{kind}:{pk}",)
    record(actor, Fact(verb, kind, pk or 0, tenant_id=scope.tenant_id, facts=facts, topics=topics))


def _conflict(scope: Scope, key: str, expected: int | None) -> Conflict:
    found = scope.value(key)
    present = f"has version {found.version}" if found is not None else "is not there"
    return Conflict(
        f"{key} of {scope.noun} {present}, not version {expected}: read it again and decide anew.",
        code="version_conflict",
    )
