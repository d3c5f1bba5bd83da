"""Options that many commands share."""

from typing import Annotated

import typer

from rmctl.cli import failures


def _json_mode(value: bool) -> bool:
    failures.as_json = value
    return value


Json = Annotated[
    bool, typer.Option("--json", callback=_json_mode, help="Print JSON for scripts, errors included.")
]
TenantOption = Annotated[str | None, typer.Option("--tenant", "-t", help="Slug of the tenant to act for.")]
JobId = Annotated[int, typer.Argument(min=1, help="Number of the job.", metavar="JOB")]
RunId = Annotated[int, typer.Argument(min=1, help="Number of the run.", metavar="RUN")]
Reason = Annotated[str, typer.Option(help="Kept in the event log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what it would cost.")]
