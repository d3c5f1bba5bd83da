"""`rmctl import …`: workflows from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from rmctl.cli.options import Json

import_app = typer.Typer(no_args_is_help=True, help="Workflows from elsewhere as workflows of the portal.")


@import_app.callback()
def root() -> None:
    """Workflows from elsewhere as workflows of the portal."""


@import_app.command()
def airflow(
    files: Annotated[list[Path], typer.Argument(help="DAG files of Airflow 2 or 3.", metavar="FILE...")],
    airflow_python: Annotated[
        str | None,
        typer.Option(
            help="The Python of an environment that has Airflow and the providers of the DAGs.",
            envvar="RMCTL_AIRFLOW_PYTHON", show_envvar=True, metavar="PATH",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The folder that the files import their own modules from, if not that of each file."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write a folder for each workflow.")] = Path("imported"),
    node_python: Annotated[
        str | None,
        typer.Option(help="Where nodes have such a Python; the same path by default.", metavar="PATH"),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(help="A module that the nodes' own Python has, so functions that import it need no Airflow."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing when anything is lost.")] = False,
    as_json: Json = False,
) -> None:
    """Write the DAGs of Airflow files as workflows, and say what is different there.

    Each comes into a folder of its own as workflow.yaml, with the files that it ships: rmctl push FOLDER/workflow.yaml.
    Status 1: something is lost, or a file could not be read; it is named.
    """  # fmt: skip
    from rmctl.cli import imports

    nodes = imports.Nodes(node_python or airflow_python or "", module or [])
    imports.airflow(files, airflow_python, root, nodes, out, strict, as_json)
