"""Requests to addresses that tenants give: only http and https, only to addresses that are everybody's.

The name is resolved once and the address that was looked at is the one that is connected to, so that a name that
answers differently the second time reaches nothing else (DNS rebinding). Redirects are not followed, proxies of the
environment not used. `NOTIFY_NETWORKS` names the private networks that an operator opens.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urlsplit

import httpx
from django.conf import settings

# Seconds from the look-up of the name to the end of the answer, however slowly that comes.
TOTAL_SECONDS = 15.0
ANSWER_BYTES = 2000
URL_MAX = 2000
RETRY_AFTER_MAX = 3600
# IPv6 networks that carry IPv4 addresses, which may be private ones: NAT64 (RFC 6052, RFC 8215).
TRANSLATED = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48"))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """The address is none that the portal sends to; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went: `error` is empty when it was taken. `gone`: there is no use in trying again."""

    error: str = ""
    retry_after: float | None = None
    gone: bool = False

    @property
    def ok(self) -> bool:
        """Whether the receiver has taken it."""
        return not self.error


def checked_url(url: str) -> SplitResult:
    """The parts of an address that may be stored. Raises Refused for what could never be sent to."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Refused("it is no address; give https://host/path.") from None
    if len(url) > URL_MAX or any(ord(sign) <= 32 or ord(sign) == 127 for sign in url):
        raise Refused(f"at most {URL_MAX} characters, without blanks.")
    if parts.scheme not in ("http", "https") or not host:
        raise Refused("it must begin with https:// or http:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise Refused("leave the user name and the password out of it; deliveries are signed.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return parts
    _check(address, host)
    return parts


def _check(address: Address, host: str) -> None:
    if not allowed(address):
        raise Refused(
            f"{host} is the address {address}, which is private to this network; an operator can open networks with "
            "RMPORTAL_NOTIFY_NETWORKS."
        )


def allowed(address: Address) -> bool:
    """Whether the portal may send there: to global addresses, and to networks that the operator has opened."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return allowed(inner)
        if any(address in network for network in TRANSLATED):
            return allowed(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address.version == network.version and address in network for network in settings.NOTIFY_NETWORKS):
        return True
    return address.is_global and not address.is_multicast and not address.is_reserved


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
    """Send one request and say how it went; never raises for what the other side does."""
    try:
        return asyncio.run(_post(url, body, headers))
    except Refused as error:
        return Outcome(f"Not sent: {error}")
    except TimeoutError:
        return Outcome(f"No answer within {TOTAL_SECONDS:g} s.")
    except (httpx.HTTPError, OSError) as error:
        # Its words name the address that was connected to, never the path of the URL, in which a token may be.
        return Outcome(f"The request failed: {_plain(error)}.")


def _plain(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


async def _post(url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
    async with asyncio.timeout(TOTAL_SECONDS):
        parts = checked_url(url)
        host = parts.hostname or ""
        address = await _resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
        literal = f"[{address}]" if address.version == 6 else str(address)
        target = parts._replace(netloc=f"{literal}:{parts.port}" if parts.port else literal, fragment="").geturl()
        sent = {"Content-Type": "application/json", "User-Agent": "RMPortal", **headers, "Host": parts.netloc}
        async with (
            httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=TOTAL_SECONDS) as client,
            client.stream("POST", target, content=body, headers=sent, extensions={"sni_hostname": host}) as answer,
        ):
            said = b""
            async for piece in answer.aiter_raw():
                said += piece
                if len(said) >= ANSWER_BYTES:
                    break
            return _outcome(answer, said[:ANSWER_BYTES].decode(errors="replace"))


async def _resolve(host: str, port: int) -> Address:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"the name {host} cannot be resolved ({error.strerror or error}).") from None
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    for address in addresses:
        if allowed(address):
            return address
    _check(addresses[0], host)
    raise AssertionError("an address that is not allowed is refused")


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _outcome(answer: httpx.Response, said: str) -> Outcome:
    status = answer.status_code
    if 200 <= status < 300:
        return Outcome()
    if 300 <= status < 400:
        return Outcome(f"It answers {status}, a redirect, which is not followed: give the address it leads to.")
    raw = answer.headers.get("Retry-After", "")
    wait = min(float(raw), RETRY_AFTER_MAX) if raw.isascii() and raw.isdigit() and len(raw) < 10 else None
    text = " ".join(said.split())[:200]
    error = f"It answers {status} {answer.reason_phrase}".rstrip() + (f": {text}" if text else ".")
    return Outcome(error, retry_after=wait, gone=status == 410)
