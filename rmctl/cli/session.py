"""The client and the tenant of a command."""

from typing import TYPE_CHECKING

from rmctl.cli.failures import UsageError

if TYPE_CHECKING:
    from rmctl.client import Client


def client() -> "Client":
    """A client for the configured portal."""
    from rmctl.client import Client

    return Client.from_config()


def tenant_of(asked: "Client", named: str | None) -> str:
    """The tenant to act for: the one named, the configured one, or the only one the person belongs to."""
    from rmctl.client import load_config

    tenant = named or load_config().tenant
    if tenant:
        return tenant
    tenants = sorted({role["tenant"] for role in asked.me()["roles"] if role.get("tenant")})
    if len(tenants) == 1:
        return str(tenants[0])
    if not tenants:
        raise UsageError("You belong to no tenant: ask its admin to add you, or name one with --tenant.")
    raise UsageError(f"You belong to {', '.join(tenants)}: name one with --tenant (or set RMCTL_TENANT).")


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`["A=1"]` as `{"A": "1"}`."""
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text!r}: give NAME=VALUE.")
        found[name] = value
    return found
