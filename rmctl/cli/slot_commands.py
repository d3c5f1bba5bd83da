"""`rmctl slots …`: what tasks of a tenant share that bears only so many at once."""

from typing import Annotated, Any

import typer

from rmctl.cli.options import Json, TenantOption

slots_app = typer.Typer(no_args_is_help=True, help="Slot pools: how many tasks may use something at once.")
Pool = Annotated[str, typer.Argument(help="Name or number of the slot pool.", metavar="POOL")]
Size = Annotated[int, typer.Argument(min=0, help="How many slots; with 0 its tasks stand still.")]
Description = Annotated[str | None, typer.Option(help="What the slots stand for.")]


@slots_app.command("list")
def list_(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List slot pools with how much of them is held and how many tasks wait."""
    from rmctl.cli import tenant_things as things

    columns = ("id", "name", "tenant", "size", "held", "waiting", "description")
    things.show("slot-pools", columns, as_json, tenant=things.tenant_of(tenant))


@slots_app.command()
def create(
    name: Annotated[str, typer.Argument(help="As tasks will name it.")],
    size: Size,
    description: Description = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Make a slot pool: `rmctl slots create warehouse 4`."""
    from rmctl.cli import tenant_things as things

    body: dict[str, Any] = {"name": name, "size": size, "description": description or ""}
    things.post("slot-pools", body, "slot pool {name} has {size} slots", as_json, tenant)


@slots_app.command("set")
def set_(
    pool: Pool,
    size: Annotated[int | None, typer.Option(min=0, help="How many slots; with 0 its tasks stand still.")] = None,
    description: Description = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Give a slot pool another size or description; who holds slots keeps them."""
    from rmctl.cli import slots

    slots.change(pool, size, description, tenant, as_json)


@slots_app.command()
def show(pool: Pool, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Show who holds slots of a pool, and who is in line."""
    from rmctl.cli import slots

    slots.show(pool, tenant, as_json)


@slots_app.command()
def delete(pool: Pool, tenant: TenantOption = None) -> None:
    """Delete a slot pool that no workflow names any more."""
    from rmctl.cli import slots

    slots.delete(pool, tenant)
