"""`rmctl login` and `rmctl whoami`."""

import getpass
import socket
import sys

from rmctl.cli.failures import UsageError
from rmctl.cli.output import print_json, print_table, stdout
from rmctl.cli.session import client
from rmctl.client import Client, Config, save_config


def login(url: str, user: str | None, token: str | None, tenant: str | None, as_json: bool) -> None:
    """Get a token, try it, and keep it."""
    url = url if "://" in url else f"https://{url}"
    if token == "-":
        token = sys.stdin.readline().strip()
    if not token:
        user = user or _ask("User: ")
        password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        if not password:
            raise UsageError("No password was given; type it, or pipe it in.")
        with Client(url) as asked:
            token = asked.login(user, password, f"rmctl on {socket.gethostname()}"[:100])
    with Client(url, token) as asked:
        me = asked.me()
    path = save_config(Config(url.rstrip("/"), token, tenant or ""))
    if as_json:
        print_json({"url": url, "username": me["username"], "config": str(path)})
    else:
        stdout().print(f"signed in to {url} as {me['username']}; kept in {path}")


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError("No user was given; use --user, or --token.")
    return input(prompt).strip()


def whoami(as_json: bool) -> None:
    """Name and roles."""
    with client() as asked:
        me, url = asked.me(), asked.url
    if as_json:
        print_json(me)
        return
    operator = " (operator)" if me.get("operator") else ""
    stdout().print(f"{me['username']}{operator} at {url}")
    rows = [(role["role"], role.get("tenant"), role.get("domain")) for role in me.get("roles", [])]
    print_table(("role", "tenant", "domain"), rows, empty="no roles yet")
