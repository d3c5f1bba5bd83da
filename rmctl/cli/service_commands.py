"""`rmctl deploy` and `rmctl services`: long-running services."""

from pathlib import Path
from typing import Annotated

import typer

from rmctl.cli.options import Json, TenantOption

services_app = typer.Typer(no_args_is_help=True, help="Long-running services: replicas that are kept running.")
Service = Annotated[str, typer.Argument(help="Name or number of the service.", metavar="SERVICE")]
Reason = Annotated[str, typer.Option(help="Kept in the event log.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Until the rollout has ended; exit status 1 if badly.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(deploy)
    app.add_typer(services_app, name="services")


def deploy(
    file: Annotated[Path, typer.Argument(help="A service as YAML or JSON.")],
    replicas: Annotated[int | None, typer.Option(min=0, help="How many, instead of what the file says.")] = None,
    tenant: TenantOption = None,
    wait: Wait = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, keep nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a service, or roll out what is new of it. The same again changes nothing."""
    from rmctl.cli import services

    services.deploy(file, replicas, tenant, wait=wait, dry_run=dry_run, as_json=as_json)


@services_app.command("list")
def list_(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List services with how many replicas are ready."""
    from rmctl.cli import tenant_things as things

    columns = ("id", "name", "tenant", "condition", "ready", "replicas", "revision", "rollout", "detail")
    things.show("services", columns, as_json, tenant=things.tenant_of(tenant))


@services_app.command()
def show(service: Service, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Show a service with its replicas, revisions and rollouts."""
    from rmctl.cli import services

    services.show(service, tenant, as_json)


@services_app.command()
def scale(
    service: Service,
    replicas: Annotated[int, typer.Argument(min=0, help="How many.")],
    reason: Reason = "",
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Let so many replicas run."""
    from rmctl.cli import services

    services.act(service, "scale", {"replicas": replicas, "reason": reason}, tenant, as_json=as_json)


@services_app.command()
def rollback(
    service: Service,
    revision: Annotated[int, typer.Argument(min=1, help="Number of the revision.")],
    reason: Reason = "",
    tenant: TenantOption = None,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Roll out a revision that was there before."""
    from rmctl.cli import services

    services.act(service, "rollback", {"revision": revision, "reason": reason}, tenant, wait=wait, as_json=as_json)


@services_app.command()
def stop(service: Service, reason: Reason = "", tenant: TenantOption = None, as_json: Json = False) -> None:
    """End all replicas; the service stays, and can be deployed again."""
    from rmctl.cli import services

    services.act(service, "stop", {"reason": reason}, tenant, as_json=as_json)


@services_app.command()
def remove(service: Service, tenant: TenantOption = None) -> None:
    """Forget a service that is stopped; the jobs of its replicas stay."""
    from rmctl.cli import services

    services.remove(service, tenant)
