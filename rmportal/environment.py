"""Environment variables, read for the settings; a wrong value stops the start and names the variable."""

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
OIDC_REQUIRED = ("provider_id", "name", "client_id", "settings")
OIDC_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "server_url": str,
    "token_auth_method": str,
    "scope": list,
    "fetch_userinfo": bool,
    "verified_email": (bool, list),
    "email_authentication": bool,
}
# Tokens travel in the clear over http, so only where nobody can listen.
HTTP_LOOPBACK = [("http", host) for host in ("localhost", "127.0.0.1", "::1")]


def boolean(name: str, default: bool) -> bool:
    """Read `name` as 0/1, true/false; raises ImproperlyConfigured otherwise."""
    raw = os.environ.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in ("1", "true", "yes", "on"):
        return True
    if raw in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name}={raw!r}: expected 0 or 1.")


def rate(name: str, default: str) -> str:
    """How many requests in a second, minute, hour or day, as `600/min`. Raises ImproperlyConfigured."""
    raw = os.environ.get(name) or default
    if not re.fullmatch(r"[1-9]\d{0,8}/[smhd][a-z]*", raw):
        raise ImproperlyConfigured(f"{name}={raw!r}: expected a rate such as 20/s, 600/min, 1000/hour or 5000/day.")
    return raw


def log_level(name: str, default: str) -> str:
    """The least severe messages that are logged. Raises ImproperlyConfigured."""
    raw = (os.environ.get(name) or default).upper()
    if raw not in LOG_LEVELS:
        raise ImproperlyConfigured(f"{name}={raw!r}: expected one of {', '.join(LOG_LEVELS)}.")
    return raw


def secret_key(data: Path) -> str:
    """The secret key from RMPORTAL_SECRET_KEY or the file secret_key in the data folder."""
    value = os.environ.get("RMPORTAL_SECRET_KEY", "")
    if not value and (data / "secret_key").is_file():
        value = (data / "secret_key").read_text().strip()
    if len(value) < 32:
        raise ImproperlyConfigured(
            "RMPORTAL_SECRET_KEY is missing or shorter than 32 characters: set it, or start with ./portal, "
            "which keeps one in the data folder."
        )
    return value


def server_address(name: str, url: str) -> SplitResult:
    """The parts of a server's URL. What is told about a wrong one never quotes it, as a password may be in it."""
    parts = urlsplit(url)
    try:
        clear = parts.port is None or parts.port > 0
    except ValueError:
        clear = False
    # A sign in a password that ends the host's part early leaves an @ behind it.
    if not clear or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query + parts.fragment:
        raise ImproperlyConfigured(
            f"{name} cannot be read: expected scheme://user:password@host:port/name, where signs such as "
            "@ : / ? # % in the password are percent-encoded (@ is %40)."
        )
    return parts


def database(url: str) -> dict[str, object]:
    """Django's DATABASES entry for a postgresql:// URL; host may also be a query parameter (socket folder).

    Other query parameters (sslmode, sslrootcert, connect_timeout …) go to libpq as they are:
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
    """
    parts = server_address("DATABASE_URL", url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured(f"DATABASE_URL starts with {parts.scheme!r}: expected postgresql://…")
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or query.pop("dbname", "postgres"),
        "USER": unquote(parts.username or "") or query.pop("user", ""),
        "PASSWORD": unquote(parts.password or "") or query.pop("password", ""),
        # A socket folder may also stand percent-encoded where the host stands.
        "HOST": _host(parts) or query.pop("host", ""),
        "PORT": str(parts.port or query.pop("port", "")),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "application_name": os.environ.get("RMPORTAL_PROCESS", "rmportal"),
            "connect_timeout": "10",
            # Statements are prepared by the server on their second use: half of PostgreSQL's work for a short
            # statement is to plan it. (A pooler between the two has to keep sessions or know of this.)
            "server_side_binding": True,
            "prepare_threshold": 2,
            **query,
        },
    }


def _host(parts: SplitResult) -> str:
    """The host as it stands in the address: `hostname` would make the capitals of a folder small."""
    host = parts.hostname or ""
    if "%" in host:
        return unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    return host


def broker(url: str) -> str:
    """kombu's spelling of a redis-py URL: `unix:///path?db=0` becomes `redis+socket:///path?virtual_host=0`."""
    parts = server_address("REDIS_URL", url)
    if parts.scheme != "unix":
        return url
    query = dict(parse_qsl(parts.query))
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={query.get('db', '0')}"


def mail(url: str) -> dict[str, object]:
    """Django's EMAIL_ settings of an smtp:// (STARTTLS, unless `?starttls=0`) or smtps:// (TLS) URL."""
    if not url:
        return {}
    parts = server_address("RMPORTAL_SMTP_URL", url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or query.keys() - {"starttls"}:
        raise ImproperlyConfigured(
            "RMPORTAL_SMTP_URL: expected smtp://user:password@host:587 (?starttls=0 to send in the clear) or "
            "smtps://user:password@host:465."
        )
    direct = parts.scheme == "smtps"
    return {
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": parts.port or (465 if direct else 587),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": direct,
        "EMAIL_USE_TLS": not direct and query.get("starttls", "1") != "0",
    }


def networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks such as `10.0.0.0/8`, separated by commas. Raises ImproperlyConfigured."""
    try:
        return [ipaddress.ip_network(text.strip()) for text in os.environ.get(name, "").split(",") if text.strip()]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}; expected networks such as 10.0.0.0/8, comma separated.") from None


def oidc_providers() -> list[dict[str, Any]]:
    """The providers of RMPORTAL_OIDC as allauth's APPS; docs/sign-in.md says what may stand there."""
    try:
        providers = json.loads(os.environ.get("RMPORTAL_OIDC") or "[]")
    except ValueError as error:
        raise ImproperlyConfigured(f"RMPORTAL_OIDC is not JSON: {error}.") from None
    if not isinstance(providers, list):
        raise ImproperlyConfigured("RMPORTAL_OIDC: expected a list of providers, [{…}].")
    for place, provider in enumerate(providers):
        _check_provider(f"RMPORTAL_OIDC[{place}]", provider)
    names = [provider["provider_id"] for provider in providers]
    if len(set(names)) < len(names):
        raise ImproperlyConfigured(
            f"RMPORTAL_OIDC: two providers with one provider_id among {', '.join(names)}."
        )
    return providers


def _check_provider(place: str, provider: Any) -> None:
    if not isinstance(provider, dict):
        raise ImproperlyConfigured(f"{place}: expected an object.")
    known = (*OIDC_REQUIRED, "secret")
    unknown = [key for key in provider if key not in known]
    if unknown:
        raise ImproperlyConfigured(f"{place}.{unknown[0]} is not known: expected {', '.join(known)}.")
    for key in OIDC_REQUIRED:
        if not provider.get(key):
            raise ImproperlyConfigured(f"{place}.{key} is missing.")
    for key in ("provider_id", "name", "client_id", "secret"):
        if not isinstance(provider.get(key, ""), str):
            raise ImproperlyConfigured(f"{place}.{key}: expected text.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", provider["provider_id"]):
        raise ImproperlyConfigured(f"{place}.provider_id: expected lower-case letters, digits and hyphens.")
    settings = provider["settings"]
    if not isinstance(settings, dict):
        raise ImproperlyConfigured(f"{place}.settings: expected an object.")
    for key, value in settings.items():
        if key not in OIDC_SETTINGS:
            raise ImproperlyConfigured(
                f"{place}.settings.{key} is not known: expected {', '.join(OIDC_SETTINGS)}."
            )
        if not isinstance(value, OIDC_SETTINGS[key]):
            raise ImproperlyConfigured(
                f"{place}.settings.{key}: {value!r} is of a wrong type (docs/sign-in.md)."
            )
    if settings.get("token_auth_method", "client_secret_basic") not in (
        "client_secret_basic",
        "client_secret_post",
    ):
        raise ImproperlyConfigured(
            f"{place}.settings.token_auth_method: expected client_secret_basic or client_secret_post."
        )
    if "openid" not in settings.get("scope", ["openid"]):
        raise ImproperlyConfigured(f"{place}.settings.scope: expected a list with openid in it.")
    server = urlsplit(settings.get("server_url", ""))
    if not server.hostname or not (
        server.scheme == "https" or (server.scheme, server.hostname) in HTTP_LOOPBACK
    ):
        raise ImproperlyConfigured(
            f"{place}.settings.server_url: expected https://… (http only on this machine)."
        )
