"""`rmctl notify`: destinations, who hears of what, and how the sending went."""

from typing import Annotated, Any

import typer

from rmctl.cli.options import Json, TenantOption

notify_app = typer.Typer(no_args_is_help=True, help="Who is told what becomes of runs: destinations and messages.")
Destination = Annotated[str, typer.Argument(help="Name or number of the destination.")]
Url = Annotated[str | None, typer.Option(help="URL of a webhook or chat; - reads it from standard input.")]
To = Annotated[list[str] | None, typer.Option(help="Address of an e-mail; may be repeated.")]
Secret = Annotated[str | None, typer.Option(help="Signs what a webhook gets; - reads it from standard input.")]
Rate = Annotated[int | None, typer.Option(min=1, max=600, help="Messages a minute; more are told in one.")]


def _fields(url: str | None, to: list[str] | None, secret: str | None, per_minute: int | None) -> dict[str, Any]:
    from rmctl.cli import tenant_things as things

    given: dict[str, Any] = {
        "url": things.text(url) if url else None,
        "to": to or None,
        "secret": things.text(secret) if secret else None,
        "per_minute": per_minute,
    }
    return {name: value for name, value in given.items() if value is not None}


def _number(named: str, tenant: str | None) -> int:
    """The number of a destination. Raises UsageError for a name that is not there, or there twice."""
    from rmctl.cli.failures import UsageError
    from rmctl.cli.session import client, tenant_of

    if named.isascii() and named.isdigit():
        return int(named)
    chosen = tenant_of(tenant)
    with client() as asked:
        rows = list(asked.pages("destinations", limit=1000, **({"tenant": chosen} if chosen else {})))
    found = [row for row in rows if row["name"] == named]
    if len(found) != 1:
        known = ", ".join(row["name"] for row in rows) or "none"
        said = f"There is no destination {named}" if not found else f"Several tenants have a destination {named}"
        raise UsageError(f"{said}; there are: {known}. Name the tenant with --tenant, or give the number.")
    return int(found[0]["id"])


@notify_app.command("list")
def destination_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List destinations with what waits for them and what was given up."""
    from rmctl.cli import tenant_things as things

    columns = ("id", "name", "channel", "host", "to", "enabled", "waiting", "dead", "last_error")
    things.show("destinations", columns, as_json, tenant=tenant)


@notify_app.command("create")
def destination_create(
    name: Annotated[str, typer.Argument(help="What definitions and subscriptions call it.")],
    channel: Annotated[str, typer.Option("--kind", help="webhook, email, slack, teams or mattermost.")] = "webhook",
    url: Url = None,
    to: To = None,
    secret: Secret = None,
    per_minute: Rate = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Make a destination; of a webhook, print the secret that signs what it gets, this one time."""
    from rmctl.cli import tenant_things as things

    body = {"name": name, "channel": channel, **_fields(url, to, secret, per_minute)}
    shown = "\nsecret (shown once): {secret}" if channel == "webhook" and secret is None else ""
    things.post("destinations", body, "destination {id}: {name}" + shown, as_json, tenant)


@notify_app.command("change")
def destination_change(
    destination: Destination,
    url: Url = None,
    to: To = None,
    secret: Secret = None,
    per_minute: Rate = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it is told anything.")] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Change what is given; the rest stays."""
    from rmctl.cli.failures import UsageError
    from rmctl.cli.output import clean, print_json, stdout
    from rmctl.cli.session import client

    body = _fields(url, to, secret, per_minute) | ({} if enabled is None else {"enabled": enabled})
    if not body:
        raise UsageError("Give what is to be changed: --url, --to, --secret, --per-minute, --on or --off.")
    number = _number(destination, tenant)
    with client() as asked:
        row = asked.request("PATCH", f"destinations/{number}", body=body).json()
    if as_json:
        print_json(row)
    else:
        stdout().print(f"destination {row['id']}: {clean(row['name'])} is changed")


@notify_app.command("delete")
def destination_delete(destination: Destination, tenant: TenantOption = None) -> None:
    """Remove a destination with its messages."""
    from rmctl.cli import tenant_things as things

    things.delete(f"destinations/{_number(destination, tenant)}")


@notify_app.command("test")
def destination_test(destination: Destination, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Send a message that says nothing, to see whether it arrives."""
    path = f"destinations/{_number(destination, tenant)}/test"
    _post(path, "delivery {id} goes to {destination_name}; see: rmctl notify deliveries", as_json)


@notify_app.command("subscribe")
def subscribe(
    destination: Destination,
    kinds: Annotated[
        list[str],
        typer.Option("--on", help="run.failed, run.succeeded, run.deadline, task.failed, task.retried, "
                     "approval.opened or budget.warned; may be repeated."),
    ],
    workflow: Annotated[str | None, typer.Option(help="Of one workflow; else of the whole tenant.")] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Let a destination hear of these kinds, in place of those that it heard of there before."""
    body = {"kinds": kinds, **({"workflow": workflow} if workflow else {})}
    path = f"destinations/{_number(destination, tenant)}/subscriptions"
    _post(path, "subscription {id} of {destination_name}", as_json, body)


@notify_app.command("unsubscribe")
def unsubscribe(subscription: Annotated[int, typer.Argument(min=1, help="Number of the subscription.")]) -> None:
    """Take a subscription away."""
    from rmctl.cli import tenant_things as things

    things.delete(f"subscriptions/{subscription}")


@notify_app.command("subscriptions")
def subscription_list(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List who hears of what, besides what definitions say."""
    from rmctl.cli import tenant_things as things

    things.show("subscriptions", ("id", "destination_name", "workflow_name", "kinds"), as_json, tenant=tenant)


@notify_app.command("deliveries")
def delivery_list(
    state: Annotated[str | None, typer.Option(help="pending, sent, dead or digested.")] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """List messages with how they went, newest first."""
    from rmctl.cli import tenant_things as things

    columns = ("id", "at", "destination_name", "kind", "subject", "state", "attempts", "last_error")
    things.show("deliveries", columns, as_json, tenant=tenant, state=state)


@notify_app.command("again")
def delivery_again(
    delivery: Annotated[int, typer.Argument(min=1, help="Number of the delivery.")], as_json: Json = False
) -> None:
    """Send a message that was sent or given up once more, under its name."""
    _post(f"deliveries/{delivery}/send-again", "delivery {id} goes to {destination_name} again", as_json)


def _post(path: str, said: str, as_json: bool, body: dict[str, Any] | None = None) -> None:
    from rmctl.cli.output import clean, print_json, stdout
    from rmctl.cli.session import client

    with client() as asked:
        row = asked.post(path, body or {})
    if as_json:
        print_json(row)
    else:
        shown = {key: clean(value) for key, value in row.items()}
        stdout().print(said.format(**shown), soft_wrap=True, highlight=False, markup=False)
