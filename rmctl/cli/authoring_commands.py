"""`rmctl push`, `dev`, `schema` and `export`: what authors of workflows need, with their options."""

from pathlib import Path
from typing import Annotated

import typer

from rmctl.cli.options import Json, TenantOption

WorkflowFile = Annotated[Path, typer.Argument(help="A workflow: .py, .yaml or .yml.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(push)
    app.command()(dev)
    app.command()(schema)
    app.command()(export)


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


def dev(
    file: WorkflowFile,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; the value is JSON, or else text.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only this task and what it depends on.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Which one, if the file has several.")] = None,
    logical_time: Annotated[str | None, typer.Option(help="Of the run, for example 2026-03-01; now.")] = None,
    variables: Annotated[
        Path | None, typer.Option(help="YAML or JSON with variables, connections and secrets, each name → value.")
    ] = None,
    answer: Annotated[list[str] | None, typer.Option(help="TASK=OPTION, the answer to an approval.")] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Python tasks in processes of their own, as on a node.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Poke sensors until they are done, or once.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Keep logs, results and artifacts there.")] = None,
    as_json: Json = False,
) -> None:
    """Run a workflow of a file here, in one process, without a portal. Status 1 if the run failed."""
    from rmctl.cli import dev

    dev.dev(
        dev.Request(file, param, task, workflow, logical_time, variables, answer, isolated, wait, folder), as_json
    )


def schema(kind: Annotated[str, typer.Argument(help="workflow or job.")]) -> None:
    """Print the JSON Schema of workflows or jobs for editors. A portal has it at /schemas/workflow.json too."""
    from rmctl.cli.failures import UsageError
    from rmctl.cli.output import print_json
    from rmctl.spec import editor

    try:
        print_json(editor.schema(kind))
    except KeyError:
        raise UsageError(f"There is no schema {kind!r}; there are workflow and job.") from None


def export(
    workflow: Annotated[str, typer.Argument(help="Name or number of the workflow.")],
    form: Annotated[str, typer.Option("--as", help="yaml, json or python.")] = "yaml",
    version: Annotated[int | None, typer.Option(min=1, help="Number of a version; the current one.")] = None,
    tenant: TenantOption = None,
) -> None:
    """Print a workflow of the portal as a file that pushes to the same version."""
    from rmctl.cli import export

    export.export(workflow, form, version, tenant)
