"""`rmctl pool set` and `rmctl quota set`: the rules by which operators let jobs go first."""

from typing import Annotated

import typer

from rmctl.cli.options import Json

pool_app = typer.Typer(no_args_is_help=True, help="The rules of a pool. `rmctl list pools` shows them.")
quota_app = typer.Typer(no_args_is_help=True, help="The rules of a node of the quota tree. `rmctl list quotas`.")


@pool_app.command("set")
def pool_set(
    name: Annotated[str, typer.Argument(help="Name of the pool.")],
    priority_reach: Annotated[
        str | None,
        typer.Option(help="within_tenants; or across_tenants: priority goes before quota and fair shares."),
    ] = None,
    backfill: Annotated[str | None, typer.Option(help="Who gets a reserved start: easy, conservative, none.")] = None,
    as_json: Json = False,
) -> None:
    """Say who goes first in a pool.

    rmctl pool set default --priority-reach across_tenants
    """
    from rmctl.cli import rules

    rules.set_pool(name, priority_reach, backfill, as_json)


@quota_app.command("set")
def quota_set(
    name: Annotated[str, typer.Argument(help="Name of the node: a tenant's, or a cohort's for all below it.")],
    highest_priority: Annotated[
        str | None, typer.Option(help="The most that jobs may name, from -1000 to 1000; none: as the node above.")
    ] = None,
    weight: Annotated[float | None, typer.Option(min=0, help="In fair sharing, against its siblings.")] = None,
    as_json: Json = False,
) -> None:
    """Bound the priority that jobs may name, or change the weight in fair sharing.

    rmctl quota set vision --highest-priority 100
    """
    from rmctl.cli import rules

    rules.set_quota(name, highest_priority, weight, as_json)
