"""What `rmctl regions` does."""

from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import print_json, print_table, stdout
from rmctl.cli.session import client, pairs
from rmctl.client import ApiError

COLUMNS = ("region", "gCO₂/kWh", "ways (ms there and back)")


def show(as_json: bool) -> None:
    """All regions, each way with both of its ends."""
    with client() as asked:
        rows = list(asked.pages("regions"))
    if as_json:
        print_json(rows)
        return
    ways: dict[str, dict[str, float]] = {}
    for row in rows:
        for other, milliseconds in row["round_trips"].items():
            ways.setdefault(row["name"], {})[other] = milliseconds
            ways.setdefault(other, {})[row["name"]] = milliseconds
    known = {row["name"]: row for row in rows}
    cells = [_cells(known.get(name, {"name": name, "carbon": None}), ways.get(name, {})) for name in {*known, *ways}]
    print_table(COLUMNS, sorted(cells), right=(COLUMNS[1],), empty="nothing is known of any region")


def put(name: str, carbon: float | None, way: list[str] | None, replace: bool, as_json: bool) -> None:
    """Say it; what is not named stays, unless all is to be replaced."""
    given = {other: _milliseconds(other, value) for other, value in pairs(way, "--way").items()}
    if carbon is None and not given and not replace:
        raise UsageError("Nothing to say: give --carbon or --way.")
    with client() as asked:
        body: dict[str, Any] = {"carbon": carbon, "round_trips": given}
        if not replace:
            before = _known(asked, name)
            body["carbon"] = before.get("carbon") if carbon is None else carbon
            body["round_trips"] = {**before.get("round_trips", {}), **given}
        row = asked.request("PUT", f"regions/{name}", body=body).json()
    if as_json:
        print_json(row)
    else:
        print_table(COLUMNS, [_cells(row, row["round_trips"])], right=(COLUMNS[1],))


def remove(name: str) -> None:
    """Forget it."""
    with client() as asked:
        asked.request("DELETE", f"regions/{name}")
    stdout().print(f"Region {name} is forgotten, with the ways to it.")


def _known(asked: Any, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = asked.get(f"regions/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
        return {}
    return found


def _cells(row: dict[str, Any], ways: dict[str, float]) -> tuple[str, str, str]:
    carbon = "" if row.get("carbon") is None else f"{row['carbon']:g}"
    return row["name"], carbon, ", ".join(f"{other} {ms:g}" for other, ms in sorted(ways.items()))


def _milliseconds(other: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"--way {other}={value}: milliseconds as a number, such as {other}=90.") from None
