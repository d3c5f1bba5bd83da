"""Variables and connections of the tenant, inside a task that asked for them; loaded by tasks that do.

The portal gives them to the task in variables of its environment, by name: those that the task's templates read, and
those that it lists in `variables` and `connections`.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIXES = {"variable": "RM_VARIABLE_", "connection": "RM_CONNECTION_"}
_MISSING = object()


def environment_name(kind: str, name: str) -> str:
    """The variable that one of this kind comes in: ASCII letters and digits as they are, else their code."""
    return _PREFIXES[kind] + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in name)


def connections() -> "list[str]":
    """The names of the connections that the task was given."""
    return [name for name in os.environ.get("RM_CONNECTIONS", "").split(",") if name]


def variable(name: str, default: "Any" = _MISSING, *, json: bool = False) -> "Any":
    """A variable of the tenant as text, or as the JSON in it. Raises KeyError when the task has no such variable and
    there is no default."""
    text = os.environ.get(environment_name("variable", name))
    if text is None:
        if default is not _MISSING:
            return default
        raise KeyError(f"this task has no variable {name}: list it in the task's variables, and set it for the tenant")
    if not json:
        return text
    from json import loads

    return loads(text)


class Connection:
    """Where and as whom to connect: `conn_id conn_type host login password port schema extra`."""

    __slots__ = ("conn_id", "conn_type", "extra", "host", "login", "password", "port", "schema")

    def __init__(self, name: str, fields: "dict[str, Any]") -> None:
        self.conn_id = name
        self.conn_type: str = fields.get("type", "")
        self.host: str = fields.get("host", "")
        self.login: str = fields.get("login", "")
        self.password: str = fields.get("password", "")
        self.port: int | None = fields.get("port")
        self.schema: str = fields.get("schema", "")
        self.extra: dict[str, Any] = fields.get("extra") or {}

    @property
    def extra_dejson(self) -> "dict[str, Any]":
        """The same as `extra`, which is an object already."""
        return self.extra

    def get_uri(self) -> str:
        """The connection as a URL; the name and password are percent-encoded."""
        from urllib.parse import quote, urlencode

        login = quote(self.login, safe="")
        if self.password:
            login += f":{quote(self.password, safe='')}"
        port = f":{self.port}" if self.port else ""
        query = {key: value for key, value in self.extra.items() if isinstance(value, str)}
        return (
            f"{self.conn_type}://{login}{'@' if login else ''}{self.host}{port}/{quote(self.schema)}"
            + (f"?{urlencode(query)}" if query else "")
        )

    def secrets(self) -> "set[str]":
        """The values that must not be shown: the password, also as it stands in a URL, and texts in `extra`."""
        from urllib.parse import quote

        return {self.password, quote(self.password, safe="")} | {
            value for value in self.extra.values() if isinstance(value, str)
        }

    def __repr__(self) -> str:
        return f"<connection {self.conn_id}>"


def connection(name: str) -> Connection:
    """A connection of the tenant. Raises KeyError when the task was not given it."""
    text = os.environ.get(environment_name("connection", name))
    if text is None:
        raise KeyError(f"this task has no connection {name}: list it in the task's connections, and make it")
    from json import loads

    return Connection(name, loads(text))
