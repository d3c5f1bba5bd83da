"""What `rmctl deploy` and `rmctl services` do."""

import time
from pathlib import Path
from typing import Any

import typer

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, clean, print_json, print_table, state, stdout
from rmctl.cli.session import client, tenant_of
from rmctl.client import Client
from rmctl.sdk import yaml_loader
from rmctl.sdk.options import SdkError
from rmctl.spec.service import parse_service

POLL_SECONDS = 1.0


def _number(asked: Client, service: str, tenant: str | None) -> int:
    """The id of a service by its name or number. Raises UsageError."""
    if service.isascii() and service.isdigit():
        return int(service)
    chosen = tenant_of(tenant)
    found = list(asked.pages("services", limit=100, name=service, **({"tenant": chosen} if chosen else {})))
    if not found:
        raise UsageError(f"There is no service {service} that you can see; rmctl services list shows them.")
    if len(found) > 1:
        tenants = ", ".join(row["tenant"] for row in found)
        raise UsageError(f"There are services {service} in {tenants}: name the tenant with --tenant.")
    return int(found[0]["id"])


def deploy(
    file: Path, replicas: int | None, tenant: str | None, *, wait: bool, dry_run: bool, as_json: bool
) -> None:
    """Check here first, then deploy."""
    try:
        data = yaml_loader.parse(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    except SdkError as error:
        raise UsageError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{file}: a service is an object with name and job.")
    if replicas is not None:
        data["replicas"] = replicas
    parse_service(data)
    if chosen := tenant_of(tenant or data.get("tenant")):
        data["tenant"] = chosen
    with client() as asked:
        row = dict(asked.post("services", data, **({"dry_run": 1} if dry_run else {})))
        if wait and not dry_run:
            row = {**_ended(asked, int(row["id"])), "changed": row["changed"]}
        url = asked.url
    if as_json:
        print_json(row)
    elif dry_run:
        _say("the service would be " + ("deployed" if row["changed"] else "as it is: nothing is new"))
    else:
        news = "is deployed" if row["changed"] else "is as it was: nothing is new"
        _say(f"service {row['name']} {news}, revision {row['revision']}: {url}/services/{row['id']}/")
        _say(clean(row["detail"]))
    _judge(row, wait and not dry_run)


def act(
    service: str, verb: str, body: dict[str, Any], tenant: str | None, *, wait: bool = False, as_json: bool
) -> None:
    """Scale, roll back or stop."""
    with client() as asked:
        row = dict(asked.post(f"services/{_number(asked, service, tenant)}/{verb}", body))
        if wait:
            row = _ended(asked, int(row["id"]))
    if as_json:
        print_json(row)
    else:
        _say(_line(row))
    _judge(row, wait)


def remove(service: str, tenant: str | None) -> None:
    """Forget a service."""
    with client() as asked:
        asked.request("DELETE", f"services/{_number(asked, service, tenant)}")


def show(service: str, tenant: str | None, as_json: bool) -> None:
    """Everything about one service."""
    with client() as asked:
        found = asked.get(f"services/{_number(asked, service, tenant)}")
    if as_json:
        print_json(found)
        return
    _say(_line(found["service"]))
    _say("")
    rows = [
        (
            row["job"], row["revision"], state("stopping" if row["stopping"] and not row["ended_at"] else row["state"]),
            row["node"] or "", ago(row["running_at"] or row["created_at"]), clean(row["detail"]),
        )
        for row in found["members"]
    ]  # fmt: skip
    print_table(["JOB", "REVISION", "STATE", "NODE", "SINCE", "DETAIL"], rows, right=("JOB", "REVISION"))
    _say("")
    rolled = [
        (row["revision"], state(row["state"]), row["created_by"], ago(row["created_at"]), clean(row["detail"]))
        for row in found["rollouts"]
    ]
    print_table(["REVISION", "ROLLOUT", "BY", "SINCE", "DETAIL"], rolled, right=("REVISION",))


def _ended(asked: Client, service: int) -> dict[str, Any]:
    """The service once its rollout has ended; asks every second, as a person's terminal may."""
    while True:
        row = dict(asked.get(f"services/{service}")["service"])
        if row["rollout"] != "rolling":
            return row
        time.sleep(POLL_SECONDS)


def _judge(row: dict[str, Any], waited: bool) -> None:
    if waited and row["rollout"] != "complete":
        raise typer.Exit(1)


def _line(row: dict[str, Any]) -> str:
    return f"service {row['name']}: {row['condition']}, revision {row['revision']}, {row['rollout']}. {row['detail']}"


def _say(text: str) -> None:
    stdout().print(text, soft_wrap=True, highlight=False, markup=False)
