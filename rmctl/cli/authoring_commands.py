"""`rmctl push`, `dev`, `schema` and `export`: what authors of workflows need, with their options."""

from pathlib import Path
from typing import Annotated

import typer

from rmctl.cli.options import Json, TenantOption

WorkflowFile = Annotated[Path, typer.Argument(help="A workflow: .py, .yaml or .yml.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(push)


def push(
    file: WorkflowFile,
    tenant: TenantOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only look for faults, here and by asking the portal; nothing is kept.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="With --check: do not ask the portal.")] = False,
    as_json: Json = False,
) -> None:
    """Compile the workflows of a file and make them the newest version. All faults are shown with file and line."""
    from rmctl.cli import push

    if check:
        push.check(file, tenant, offline, as_json)
    else:
        push.push(file, tenant, as_json)
