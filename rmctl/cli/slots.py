"""What `rmctl slots set`, `show` and `delete` do."""

from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, print_json, print_table, stdout
from rmctl.cli.session import client, tenant_of
from rmctl.client import Client

COLUMNS = ("workflow", "run", "slots", "weight", "since")


def _number(asked: Client, pool: str, tenant: str | None) -> int:
    """The id of a pool by its name or number. Raises UsageError."""
    if pool.isascii() and pool.isdigit():
        return int(pool)
    chosen = tenant_of(tenant)
    rows = asked.pages("slot-pools", limit=10_000, **({"tenant": chosen} if chosen else {}))
    found = [row for row in rows if row["name"] == pool]
    if not found:
        raise UsageError(f"There is no slot pool {pool} that you can see; rmctl slots list shows them.")
    if len(found) > 1:
        tenants = ", ".join(row["tenant"] for row in found)
        raise UsageError(f"There are slot pools {pool} in {tenants}: name the tenant with --tenant.")
    return int(found[0]["id"])


def change(pool: str, size: int | None, description: str | None, tenant: str | None, as_json: bool) -> None:
    """Another size or description."""
    body = {name: value for name, value in (("size", size), ("description", description)) if value is not None}
    if not body:
        raise UsageError("Nothing to change: give --size or --description.")
    with client() as asked:
        row = asked.request("PATCH", f"slot-pools/{_number(asked, pool, tenant)}", body=body).json()
    if as_json:
        print_json(row)
    else:
        stdout().print(_line(row), highlight=False, markup=False)


def show(pool: str, tenant: str | None, as_json: bool) -> None:
    """Holders and who is in line."""
    with client() as asked:
        row = asked.get(f"slot-pools/{_number(asked, pool, tenant)}")
    if as_json:
        print_json(row)
        return
    stdout().print(_line(row), highlight=False, markup=False)
    for title, name in (("HELD BY", "held_by"), ("IN LINE", "in_line")):
        if row[name]:
            print_table([title, *COLUMNS], [_cells(claim) for claim in row[name]], right=COLUMNS[1:])


def delete(pool: str, tenant: str | None) -> None:
    """Delete a pool."""
    with client() as asked:
        asked.request("DELETE", f"slot-pools/{_number(asked, pool, tenant)}")


def _cells(claim: dict[str, Any]) -> tuple[Any, ...]:
    fields = ("name", "workflow_name", "run", "slots", "weight")
    return (*(claim[field] for field in fields), ago(claim["since"]))


def _line(row: dict[str, Any]) -> str:
    return f"slot pool {row['name']}: {row['held']} of {row['size']} slots held, {row['waiting']} waiting"
