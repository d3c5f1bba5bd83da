"""What `rmctl pool` and `rmctl quota` do."""

import re
from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import clean, print_json, stdout
from rmctl.cli.session import client


def set_pool(name: str, priority_reach: str | None, backfill: str | None, as_json: bool) -> None:
    """Change what was given of a pool's rules."""
    given = {"priority_reach": priority_reach, "backfill": backfill}
    row = _change("pools", name, {key: value for key, value in given.items() if value is not None})
    if as_json:
        return print_json(row)
    stdout().print(f"pool {clean(name)}: priority {row['priority_reach']}, backfill {row['backfill']}")


def set_quota(name: str, highest_priority: str | None, weight: float | None, as_json: bool) -> None:
    """Change what was given of a quota's rules."""
    body: dict[str, Any] = {} if weight is None else {"weight": weight}
    if highest_priority is not None:
        if highest_priority != "none" and not re.fullmatch(r"-?[0-9]{1,4}", highest_priority):
            raise UsageError(f"--highest-priority {highest_priority}: give a whole number, or none.")
        body["highest_priority"] = None if highest_priority == "none" else int(highest_priority)
    row = _change("quotas", name, body)
    if as_json:
        return print_json(row)
    highest = "as the node above" if row["highest_priority"] is None else row["highest_priority"]
    stdout().print(f"quota {clean(name)}: highest priority {highest}, weight {row['weight']:g}")


def _change(noun: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Patch the row of this name. Raises UsageError for nothing to change, or a name that is not there."""
    if not body:
        raise UsageError("Nothing to change: give an option; --help lists them.")
    with client() as asked:
        names = {row["name"]: row["id"] for row in asked.pages(noun)}
        if name not in names:
            raise UsageError(f"There is no {noun[:-1]} {name}; known: {', '.join(sorted(names)) or 'none'}.")
        row: dict[str, Any] = asked.request("PATCH", f"{noun}/{names[name]}", body=body).json()
        return row
