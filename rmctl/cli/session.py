"""The client and the tenant of a command."""

from typing import TYPE_CHECKING

from rmctl.cli.failures import UsageError

if TYPE_CHECKING:
    from rmctl.client import Client


def client() -> "Client":
    """A client for the configured portal."""
    from rmctl.client import Client

    return Client.from_config()


def tenant_of(named: str | None) -> str | None:
    """The tenant to act for: the one named, or the configured one; without either the portal takes the only one."""
    from rmctl.client import load_config

    return named or load_config().tenant or None


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`["A=1"]` as `{"A": "1"}`."""
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text!r}: give NAME=VALUE.")
        found[name] = value
    return found
