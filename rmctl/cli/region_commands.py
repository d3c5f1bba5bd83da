"""`rmctl regions`: how far regions are from each other, and how clean their power is."""

from typing import Annotated

import typer

from rmctl.cli.options import Json

regions_app = typer.Typer(no_args_is_help=True, help="Regions: the ways between them, and the carbon of their power.")
Name = Annotated[str, typer.Argument(help="Name of the region, as nodes and clusters have it.")]


@regions_app.command("list")
def regions_list(as_json: Json = False) -> None:
    """List what is known of each region."""
    from rmctl.cli import regions

    regions.show(as_json)


@regions_app.command("set")
def regions_set(
    name: Name,
    carbon: Annotated[
        float | None, typer.Option(min=0, max=10_000, help="Grams of CO₂ for a kWh of its power.")
    ] = None,
    way: Annotated[
        list[str] | None,
        typer.Option("--way", help="REGION=MILLISECONDS to it and back, such as us=90; repeat for more."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget what was said before, instead of keeping what is not named here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is known of a region. A way is the same in both directions."""
    from rmctl.cli import regions

    regions.put(name, carbon, way, replace, as_json)


@regions_app.command("remove")
def regions_remove(name: Name) -> None:
    """Forget a region, and the ways to it."""
    from rmctl.cli import regions

    regions.remove(name)
