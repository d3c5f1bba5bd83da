"""Charging and releasing quota: always inside the transaction of the grant that it belongs to.

Charges hold the tree's advisory lock, so that the check in `engine.quota` and the charge are one step; a
release only ever makes room and takes row locks alone. Rows are touched in key order.
"""

from collections.abc import Iterable, Mapping

from django.conf import settings
from django.db import connection

from apps.core.locks import LockClass, lock_in_transaction

Charge = tuple[int, str, Mapping[str, int]]  # quota node, flavor, resource → amount


def lock_trees() -> None:
    """Keep every other charge and every change of limits away until this transaction ends."""
    lock_in_transaction(LockClass.QUOTA_TREE, 0)


def _summed(charges: Iterable[Charge]) -> list[tuple[int, str, str, int]]:
    sums: dict[tuple[int, str, str], int] = {}
    for node, flavor, amounts in charges:
        for resource, amount in amounts.items():
            if amount:
                key = (node, flavor, resource)
                sums[key] = sums.get(key, 0) + amount
    return [(*key, amount) for key, amount in sorted(sums.items())]


def charge(charges: Iterable[Charge]) -> None:
    """Add the amounts to the usage of the leaves; the caller has checked that they fit."""
    rows = _summed(charges)
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO quotas_quotausage AS u (node_id, flavor, resource, used) "
                "SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) "
                "ON CONFLICT (node_id, flavor, resource) DO UPDATE SET used = u.used + excluded.used",
                [list(column) for column in zip(*rows, strict=True)],
            )


def decay() -> None:
    """Bring the decayed averages up to now: `average += (used - average) * (1 - 0.5 ** (seconds / half-life))`.

    The same formula as `engine.history.averaged`, on the rows that are not zero.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_quotausage SET averaged_at = now(), average = average + (used - average) * "
            "(1 - power(0.5, greatest(0, extract(epoch FROM now() - coalesce(averaged_at, now()))) / %s)) "
            "WHERE used > 0 OR average >= 1 OR averaged_at IS NULL",
            [settings.QUOTA_HALF_LIFE_SECONDS],
        )


def release(charges: Iterable[Charge]) -> None:
    """Take the amounts back; the CHECK on `used` refuses to release what was never charged."""
    rows = _summed(charges)
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE quotas_quotausage AS u SET used = u.used - v.amount "
                "FROM (SELECT q.id, v.amount FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) "
                "AS v(node, flavor, resource, amount) JOIN quotas_quotausage q "
                "ON (q.node_id, q.flavor, q.resource) = (v.node, v.flavor, v.resource) "
                "ORDER BY q.node_id, q.flavor COLLATE \"C\", q.resource COLLATE \"C\" FOR UPDATE OF q) AS v "
                "WHERE u.id = v.id",
                [list(column) for column in zip(*rows, strict=True)],
            )
