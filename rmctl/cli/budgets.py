"""`rmctl budget set`, `change` and `remove`; `rmctl list budgets` shows them."""

from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.listing import KINDS
from rmctl.cli.output import print_json, stdout, table
from rmctl.cli.session import client


def make(body: dict[str, Any], as_json: bool) -> None:
    """Give somebody a budget; what is left out stays with the portal's own default."""
    given = {name: value for name, value in body.items() if value is not None}
    with client() as asked:
        _show(asked.post("budgets", given), as_json)


def change(number: int, amount: float | None, hard: bool | None, as_json: bool) -> None:
    """Another amount, or a limit in place of a warning and the other way round."""
    body = {name: value for name, value in (("amount", amount), ("hard", hard)) if value is not None}
    if not body:
        raise UsageError("Nothing to change: give --amount, --hard or --warn.")
    with client() as asked:
        _show(asked.request("PATCH", f"budgets/{number}", body=body).json(), as_json)


def remove(number: int) -> None:
    """Take a budget away."""
    with client() as asked:
        asked.request("DELETE", f"budgets/{number}")
    stdout().print(f"Budget {number} is gone.")


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    kind = KINDS["budgets"]
    stdout().print(table(kind.columns, kind.rows(row), right=kind.right))
