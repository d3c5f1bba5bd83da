"""Which version the tenant's variables, connections and secrets have, without their values."""

import hashlib
from collections.abc import Collection

from rmctl.spec.tasks import CONNECTION, OPTIONAL_VARIABLE, VARIABLE

from .models import Secret, StoredValue


def stored_versions(tenant_id: int, references: Collection[str]) -> dict[str, str]:
    """A digest of each of what jobs refer to as `variable:x`, `connection:y`, or by the plain name of a secret.

    It changes whenever somebody sets one anew, be it to the same value, as what is digested is the sealed text. Absent
    ones are left out.
    """
    if not references:
        return {}
    plain = {reference: _kind_and_name(reference) for reference in references}
    names = {name for _, name in plain.values()}
    rows = StoredValue.objects.filter(tenant_id=tenant_id, name__in=names).values_list("kind", "name", "ciphertext")
    known = {(kind, name): text for kind, name, text in rows}
    if any(kind == "" for kind, _ in plain.values()):
        secrets = Secret.objects.filter(tenant_id=tenant_id, name__in=names)
        known |= {("", name): text for name, text in secrets.values_list("name", "ciphertext")}
    return {
        reference: hashlib.sha256(known[found].encode()).hexdigest()
        for reference, found in plain.items()
        if found in known
    }


def _kind_and_name(reference: str) -> tuple[str, str]:
    for prefix, kind in ((VARIABLE, "variable"), (OPTIONAL_VARIABLE, "variable"), (CONNECTION, "connection")):
        if reference.startswith(prefix):
            return kind, reference.removeprefix(prefix)
    return "", reference
