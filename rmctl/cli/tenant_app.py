"""`rmctl dataset`, `webhook`, `variable` and `connection`: what belongs to a tenant besides its work."""

from typing import Annotated, Any

import typer

from rmctl.cli import failures

TenantOption = Annotated[str | None, typer.Option("--tenant", "-t", help="Slug of the tenant to act for.")]


def _json_mode(value: bool) -> bool:
    failures.as_json = value
    return value


Json = Annotated[
    bool, typer.Option("--json", callback=_json_mode, help="Print JSON for scripts, errors included.")
]
Name = Annotated[str, typer.Argument(help="Its name.")]

dataset_app = typer.Typer(no_args_is_help=True, help="What tasks update and workflows wait for.")
webhook_app = typer.Typer(no_args_is_help=True, help="Signed calls from outside that trigger a workflow.")
variable_app = typer.Typer(no_args_is_help=True, help="Values that templates read as var.value.NAME.")
connection_app = typer.Typer(no_args_is_help=True, help="Where and as whom to connect: conn.NAME in templates.")


def register(app: typer.Typer) -> None:
    """Add the groups to the command line."""
    app.add_typer(dataset_app, name="dataset")
    app.add_typer(webhook_app, name="webhook")
    app.add_typer(variable_app, name="variable")
    app.add_typer(connection_app, name="connection")


@dataset_app.command("list")
def dataset_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List datasets with how many tasks make them and workflows wait for them."""
    from rmctl.cli import tenant_things as things

    things.show("datasets", ("id", "uri", "tenant", "producers", "consumers", "updated_at"), as_json, tenant=tenant)


@dataset_app.command("events")
def dataset_events(
    dataset: Annotated[int, typer.Argument(min=1, help="Number of the dataset.")], as_json: Json = False
) -> None:
    """List the updates of a dataset, newest first."""
    from rmctl.cli import tenant_things as things

    columns = ("id", "at", "workflow_name", "run", "task", "source", "extra")
    things.show(f"datasets/{dataset}/events", columns, as_json)


@dataset_app.command("update")
def dataset_update(
    uri: Annotated[str, typer.Argument(help="URI of the dataset; one that is not known is made.")],
    extra: Annotated[str, typer.Option(help="A JSON object for the runs that it triggers.")] = "{}",
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Say that a dataset was updated."""
    from rmctl.cli import tenant_things as things

    body = {"uri": uri, "extra": things.parsed(extra, "--extra")}
    things.post("dataset-events", body, "event {id} of {uri}", as_json, tenant)


@webhook_app.command("list")
def webhook_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List webhooks."""
    from rmctl.cli import tenant_things as things

    things.show("webhooks", ("id", "name", "tenant", "workflow", "dataset"), as_json, tenant=tenant)


@webhook_app.command("create")
def webhook_create(
    name: Name,
    workflow: Annotated[str | None, typer.Option(help="Name of the workflow that it triggers.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Or URI of the dataset that it updates.")] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Make a webhook and print its secret, this one time."""
    from rmctl.cli import tenant_things as things

    body = {"name": name, "workflow": workflow, "dataset": dataset}
    given = {key: value for key, value in body.items() if value is not None}
    said = "POST {url}/api/v1/webhooks/{id}/deliveries\nsecret (shown once): {secret}"
    things.post("webhooks", given, said, as_json, tenant)


@webhook_app.command("delete")
def webhook_delete(webhook: Annotated[int, typer.Argument(min=1, help="Number of the webhook.")]) -> None:
    """Remove a webhook."""
    from rmctl.cli import tenant_things as things

    things.delete(f"webhooks/{webhook}")


@variable_app.command("list")
def variable_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List the names of variables."""
    from rmctl.cli import tenant_things as things

    things.show(f"tenants/{things.slug(tenant)}/variables", ("name", "updated_at"), as_json)


@variable_app.command("get")
def variable_get(name: Name, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Print a variable."""
    from rmctl.cli import tenant_things as things

    things.value(f"tenants/{things.slug(tenant)}/variables/{name}", as_json)


@variable_app.command("set")
def variable_set(
    name: Name,
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Make or replace a variable."""
    from rmctl.cli import tenant_things as things

    body = {"name": name, "value": things.text(value)}
    things.post(f"tenants/{things.slug(tenant)}/variables", body, "variable {name} is set", as_json)


@variable_app.command("delete")
def variable_delete(name: Name, tenant: TenantOption = None) -> None:
    """Remove a variable."""
    from rmctl.cli import tenant_things as things

    things.delete(f"tenants/{things.slug(tenant)}/variables/{name}")


@connection_app.command("list")
def connection_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List connections, without what is secret."""
    from rmctl.cli import tenant_things as things

    columns = ("name", "type", "host", "port", "login", "schema")
    things.show(f"tenants/{things.slug(tenant)}/connections", columns, as_json)


@connection_app.command("set")
def connection_set(
    name: Name,
    type_: Annotated[str | None, typer.Option("--type", help="For example postgres or https.")] = None,
    host: Annotated[str | None, typer.Option(help="Host name.")] = None,
    login: Annotated[str | None, typer.Option(help="User name there.")] = None,
    password: Annotated[str | None, typer.Option(help="- reads it from standard input.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    schema: Annotated[str | None, typer.Option(help="Schema or database.")] = None,
    extra: Annotated[str | None, typer.Option(help="A JSON object of further values.")] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Make or replace a connection; password and extra stay as they are when left out."""
    from rmctl.cli import tenant_things as things

    body: dict[str, Any] = {
        "name": name, "type": type_, "host": host, "login": login, "port": port, "schema": schema,
        "password": things.text(password) if password else None,
        "extra": things.parsed(extra, "--extra") if extra else None,
    }  # fmt: skip
    given = {key: value for key, value in body.items() if value is not None}
    things.post(f"tenants/{things.slug(tenant)}/connections", given, "connection {name} is set", as_json)


@connection_app.command("delete")
def connection_delete(name: Name, tenant: TenantOption = None) -> None:
    """Remove a connection."""
    from rmctl.cli import tenant_things as things

    things.delete(f"tenants/{things.slug(tenant)}/connections/{name}")
