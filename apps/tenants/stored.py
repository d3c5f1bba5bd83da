"""Variables and connections of a tenant: what templates read as `var` and `conn`, and tasks with `rmctl.variable`.

Both are encrypted at rest as secrets are. A variable can be read back; of a connection, the password and `extra`
cannot.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.crypto import seal, unseal
from apps.core.errors import FieldError, Invalid
from apps.events.record import Fact, record
from rmctl.spec.tasks import CONNECTION, OPTIONAL_VARIABLE, VARIABLE
from rmctl.spec.values import STORED

from . import policies
from .models import StoredValue, Tenant

VALUE_MAX_BYTES = 32 * 1024
TEXTS = {"type": 50, "host": 255, "login": 255, "password": 4096, "schema": 255}
# What of a connection is shown; the rest is never read back.
SHOWN = ("type", "host", "login", "port", "schema")


@transaction.atomic
def set_variable(*, actor: Actor, tenant: Tenant, name: str, value: str) -> StoredValue:
    """Make or replace a variable. Raises Invalid."""
    if len(value.encode()) > VALUE_MAX_BYTES or "\0" in value:
        raise Invalid.field("value", f"at most {VALUE_MAX_BYTES // 1024} KiB, without NUL characters.", "too_large")
    return _set(actor, tenant, StoredValue.Kind.VARIABLE, name, value, {})


@transaction.atomic
def set_connection(*, actor: Actor, tenant: Tenant, name: str, fields: Mapping[str, Any]) -> StoredValue:
    """Make or replace a connection; a replaced one keeps its password and `extra` where none is given. Raises Invalid
    naming each wrong field."""
    policies.tenants.require(actor, "manage_secrets", tenant)
    errors = [
        FieldError(field=key, message=f"at most {most} characters, without NUL characters.", code="too_long")
        for key, most in TEXTS.items()
        if len(str(fields.get(key) or "")) > most or "\0" in str(fields.get(key) or "")
    ]
    port = fields.get("port")
    if port is not None and not 0 < port < 65536:
        errors.append(FieldError(field="port", message="from 1 to 65535.", code="out_of_range"))
    if errors:
        raise Invalid(f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)
    known: dict[str, Any] = {}
    before = StoredValue.objects.filter(tenant=tenant, kind=StoredValue.Kind.CONNECTION, name=name).first()
    if before is not None:
        known = {key: value for key, value in json.loads(unseal(before.ciphertext)).items() if key not in SHOWN}
    given = {key: value for key, value in fields.items() if value not in (None, "")}
    whole = {**known, **given}
    text = json.dumps(whole, ensure_ascii=False)
    if len(text.encode()) > VALUE_MAX_BYTES:
        raise Invalid.field("extra", f"the connection has at most {VALUE_MAX_BYTES // 1024} KiB.", "too_large")
    shown = {key: whole[key] for key in SHOWN if key in whole}
    return _set(actor, tenant, StoredValue.Kind.CONNECTION, name, text, shown)


def _set(
    actor: Actor, tenant: Tenant, kind: str, name: str, text: str, shown: Mapping[str, Any]
) -> StoredValue:
    policies.tenants.require(actor, "manage_secrets", tenant)
    if not STORED.fullmatch(name):
        raise Invalid.field("name", "letters, digits, _ . and -, at most 100 in all.", "bad_id")
    row, created = StoredValue.objects.update_or_create(
        tenant=tenant, kind=kind, name=name, defaults={"ciphertext": seal(text), "shown": dict(shown)}
    )
    verb = f"{kind}.created" if created else f"{kind}.replaced"
    record(actor, Fact(verb, kind, row.pk, tenant_id=tenant.pk, facts={"name": name}))
    return row


@transaction.atomic
def delete_stored(*, actor: Actor, tenant: Tenant, kind: str, name: str) -> None:
    """Remove a variable or connection; tasks that still read it fail with a message that names it."""
    row = policies.stored.get(actor, "delete", lock=True, tenant=tenant, kind=kind, name=name)
    record(actor, Fact(f"{kind}.deleted", kind, row.pk, tenant_id=tenant.pk, facts={"name": name}))
    row.delete()


def list_stored(actor: Actor, tenant: Tenant, kind: str) -> QuerySet[StoredValue]:
    """A tenant's variables or connections."""
    return policies.stored.visible(actor).filter(tenant=tenant, kind=kind)


def variable_of(actor: Actor, tenant: Tenant, name: str) -> StoredValue:
    """One variable with its value, for members of the tenant. Raises NotFound, Forbidden."""
    row = policies.stored.get(actor, "read", tenant=tenant, kind=StoredValue.Kind.VARIABLE, name=name)
    row.value = unseal(row.ciphertext)  # type: ignore[attr-defined]
    return row


def optional(reference: str) -> bool:
    """Whether what a job refers to may be missing."""
    return reference.startswith(OPTIONAL_VARIABLE)


def stored_values(tenant_id: int, references: Iterable[str]) -> dict[str, str]:
    """The texts behind references such as `variable:x` and `connection:db`; absent ones are left out."""
    wanted = {reference: found for reference in references if (found := _kind_and_name(reference))}
    if not wanted:
        return {}
    rows = StoredValue.objects.filter(tenant_id=tenant_id, name__in={name for _, name in wanted.values()})
    known = {(kind, name): text for kind, name, text in rows.values_list("kind", "name", "ciphertext")}
    return {reference: unseal(known[found]) for reference, found in wanted.items() if found in known}


def missing(tenant_id: int, references: Iterable[str]) -> set[str]:
    """Those of the references whose variable or connection the tenant does not have, though they need it."""
    wanted = {r: found for r in references if (found := _kind_and_name(r)) and not optional(r)}
    if not wanted:
        return set()
    rows = StoredValue.objects.filter(tenant_id=tenant_id, name__in={name for _, name in wanted.values()})
    known = set(rows.values_list("kind", "name"))
    return {reference for reference, found in wanted.items() if found not in known}


def _kind_and_name(reference: str) -> tuple[str, str] | None:
    for prefix, kind in (
        (VARIABLE, StoredValue.Kind.VARIABLE),
        (OPTIONAL_VARIABLE, StoredValue.Kind.VARIABLE),
        (CONNECTION, StoredValue.Kind.CONNECTION),
    ):
        if reference.startswith(prefix):
            return kind.value, reference.removeprefix(prefix)
    return None
