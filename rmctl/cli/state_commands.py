"""`rmctl state …`: what workflows and runs keep; the verbs and their options."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from rmctl.cli.options import Json, TenantOption

if TYPE_CHECKING:
    from rmctl.client import Client

state_app = typer.Typer(no_args_is_help=True, help="What workflows keep from run to run, and runs for their tasks.")
Where = Annotated[str, typer.Argument(help="Name or number of the workflow; with --run the number of a run.")]
OfRun = Annotated[bool, typer.Option("--run", help="WHERE is a run: what it keeps for its own tasks.")]
Key = Annotated[str, typer.Argument(help="The key.", metavar="KEY")]
Expected = Annotated[
    int | None, typer.Option("--expected-version", "-e", min=0, help="Only where it has this version; 0: not there.")
]


@contextmanager
def _asked(where: str, run: bool, tenant: str | None) -> "Iterator[tuple[Client, str]]":
    """A client, and the path of the state that is meant."""
    from rmctl.cli.failures import UsageError
    from rmctl.cli.session import client, tenant_of

    if run and not where.isdigit():
        raise UsageError(f"{where!r} is not the number of a run.")
    with client() as asked:
        owner = f"runs/{where}" if run else f"workflows/{asked.workflow(where, tenant_of(tenant))['id']}"
        yield asked, f"{owner}/state"


def _of(path: str, key: str) -> str:
    return f"{path}/{quote(key, safe='')}"


@state_app.command("list")
def listing(where: Where, run: OfRun = False, tenant: TenantOption = None, as_json: Json = False) -> None:
    """List the keys, with who wrote them last: rmctl state list etl"""
    from rmctl.cli.output import ago, print_json, print_table

    with _asked(where, run, tenant) as (asked, path):
        rows = list(asked.pages(path, ordering="id"))
    if as_json:
        print_json(rows)
        return
    shown = [(row["key"], row["version"], row["size"], row["updated_by"], ago(row["updated_at"])) for row in rows]
    print_table(("key", "version", "bytes", "written by", "when"), shown, right=("version", "bytes"))


@state_app.command()
def get(where: Where, key: Key, run: OfRun = False, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Print a value as JSON (with --json beside its version): rmctl state get etl cursor"""
    from rmctl.cli.output import print_json

    with _asked(where, run, tenant) as (asked, path):
        row = asked.get(_of(path, key))
    print_json(row if as_json else row["value"])


@state_app.command("set")
def write(
    where: Where,
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, or else text.")],
    expected: Expected = None,
    run: OfRun = False,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Keep a value: rmctl state set etl cursor '"2026-01-01"'"""
    from rmctl.cli.output import print_json, stdout
    from rmctl.cli.workflows import json_or_text

    body: dict[str, Any] = {"value": json_or_text(value)}
    if expected is not None:
        body["expected_version"] = expected
    with _asked(where, run, tenant) as (asked, path):
        row = asked.request("PUT", _of(path, key), body=body).json()
    if as_json:
        print_json(row)
    else:
        stdout().print(f"{row['key']} has version {row['version']}.")


@state_app.command()
def delete(
    where: Where, key: Key, expected: Expected = None, run: OfRun = False, tenant: TenantOption = None
) -> None:
    """Remove a value: rmctl state delete etl cursor"""
    from rmctl.cli.output import stdout

    with _asked(where, run, tenant) as (asked, path):
        asked.request("DELETE", _of(path, key), params={"expected_version": expected})
    stdout().print(f"{key} is gone.")
