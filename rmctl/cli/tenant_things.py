"""What the commands of `tenant_app` have in common."""

import json
import sys
from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import clean, print_json, print_table, stdout
from rmctl.cli.session import client, tenant_of


def slug(named: str | None) -> str:
    """The tenant to act for: named, configured, or the only one that the person may see."""
    known = tenant_of(named)
    if known:
        return known
    with client() as asked:
        rows = list(asked.pages("tenants", limit=2))
    if len(rows) != 1:
        raise UsageError("Name the tenant with --tenant.")
    return str(rows[0]["slug"])


def text(given: str) -> str:
    """What was given, or standard input for `-`, without its last line break."""
    return sys.stdin.read().removesuffix("\n") if given == "-" else given


def parsed(given: str, option: str) -> dict[str, Any]:
    """A JSON object. Raises UsageError."""
    try:
        data = json.loads(given)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise UsageError(f"{option}: {given!r} is not a JSON object; quote it for your shell.")
    return data


def show(path: str, columns: tuple[str, ...], as_json: bool, **filters: str | None) -> None:
    """A list as a table or JSON."""
    with client() as asked:
        rows = list(asked.pages(path, limit=1000, **{name: value for name, value in filters.items() if value}))
    if as_json:
        print_json(rows)
        return
    cells = [tuple("" if row.get(name) in (None, {}) else row[name] for name in columns) for row in rows]
    print_table([name.replace("_", " ") for name in columns], cells)


def post(path: str, body: dict[str, Any], said: str, as_json: bool, tenant: str | None = None) -> None:
    """Make something, and say so with its fields."""
    chosen = tenant_of(tenant) if not path.startswith("tenants/") else None
    with client() as asked:
        row = asked.post(path, {**body, **({"tenant": chosen} if chosen else {})})
        url = asked.url
    if as_json:
        print_json(row)
    else:
        shown = {key: clean(value) for key, value in row.items()}
        stdout().print(said.format(**shown, url=url), soft_wrap=True, highlight=False, markup=False)


def value(path: str, as_json: bool) -> None:
    """One value."""
    with client() as asked:
        row = asked.get(path)
    if as_json:
        print_json(row)
    else:
        sys.stdout.write(f"{row['value']}\n")


def delete(path: str) -> None:
    """Remove something."""
    with client() as asked:
        asked.request("DELETE", path)
