"""`rmctl backfill …`: the verbs and their options."""

from typing import Annotated, Any

import typer

from rmctl.cli.options import DryRun, Json, Reason, TenantOption

backfill_app = typer.Typer(no_args_is_help=True, help="Run a workflow for the past of its schedule.")
BackfillId = Annotated[int, typer.Argument(min=1, help="Number of the backfill.", metavar="BACKFILL")]


@backfill_app.command()
def create(
    workflow: Annotated[str, typer.Argument(help="Name or number of the workflow.")],
    first: Annotated[str, typer.Option("--from", help="First logical time: 2026-01-01, or with a time of day.")],
    last: Annotated[str, typer.Option("--to", help="Last logical time, included; a date means all of that day.")],
    existing: Annotated[
        str, typer.Option(help="Times that have a run: none again, only failed ones, or all completed ones.")
    ] = "none",
    order: Annotated[str, typer.Option(help="forward or backward.")] = "forward",
    max_active_runs: Annotated[int, typer.Option(min=1, help="Its own limit, apart from the workflow's.")] = 4,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; the value is JSON, or else text.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Version; the current one by default.")] = None,
    note: Annotated[str, typer.Option(help="Shown with its runs.")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Take no earlier results from the cache.")] = False,
    tenant: TenantOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make runs for a range of logical times; --dry-run shows them first.

    rmctl backfill create etl --from 2026-01-01 --to 2026-01-31 --dry-run
    """
    from rmctl.cli import backfills

    options: dict[str, Any] = {"existing": existing, "order": order, "max_active_runs": max_active_runs, "note": note}
    if version is not None:
        options["version"] = version
    if no_cache:
        options["no_cache"] = True
    backfills.create(workflow, tenant, first, last, options, param, dry_run, as_json)


@backfill_app.command("list")
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow, by name or number.")] = None,
    state: Annotated[str | None, typer.Option(help="Only this state, or several: running,paused.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many rows.")] = 50,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """List backfills, newest first."""
    from rmctl.cli import backfills

    backfills.list_all(workflow, state, limit, tenant, as_json)


@backfill_app.command()
def show(backfill: BackfillId, as_json: Json = False) -> None:
    """Show how far a backfill is, and its runs that failed."""
    from rmctl.cli import backfills

    backfills.show(backfill, as_json)


@backfill_app.command()
def pause(backfill: BackfillId, reason: Reason = "", as_json: Json = False) -> None:
    """Start no further runs of it; those that run go on."""
    from rmctl.cli import backfills

    backfills.act(backfill, "pause", {"reason": reason}, as_json)


@backfill_app.command()
def resume(backfill: BackfillId, reason: Reason = "", as_json: Json = False) -> None:
    """Let it go on."""
    from rmctl.cli import backfills

    backfills.act(backfill, "resume", {"reason": reason}, as_json)


@backfill_app.command()
def cancel(backfill: BackfillId, reason: Reason = "", as_json: Json = False) -> None:
    """End it now; its runs that have not ended are cancelled."""
    from rmctl.cli import backfills

    backfills.act(backfill, "cancel", {"reason": reason}, as_json)


@backfill_app.command()
def rerun(
    backfill: BackfillId,
    newest: Annotated[bool, typer.Option("--newest", help="On the newest version of the workflow.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Run what failed of it again, in the same runs."""
    from rmctl.cli import backfills

    backfills.act(backfill, "rerun", {"newest": newest, "reason": reason}, as_json)
