"""Variables, connections and secrets for tasks on their author's machine: from a file, or from the environment."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from rmctl.sdk import yaml_loader
from rmctl.sdk.options import SdkError

_SECTIONS = ("variables", "connections", "secrets")
_FIELDS = ("type", "host", "login", "password", "port", "schema", "extra")


class Missing(Exception):
    """A task needs something that is neither in the file nor in the environment; the message says what to give."""


class Stored:
    """What `--variables FILE` holds; a task's own variables of the environment stand in for what it does not."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        if file is not None:
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            data = yaml_loader.parse(file.read_bytes())
        except OSError as error:
            raise SdkError(f"{file}: {error.strerror}.") from None
        if not isinstance(data, dict) or not all(isinstance(part, dict) for part in data.values()):
            raise SdkError(f"{file}: give an object with {', '.join(_SECTIONS)}, each name → value.")
        for name, part in data.items():
            if name not in _SECTIONS:
                raise SdkError(f"{file}: there is no section {name}; sections are {', '.join(_SECTIONS)}.")
            self.sections[name] = part

    def environment(self, references: Mapping[str, str]) -> dict[str, str]:
        """The variables of a task from its references: `NAME` → `variable:x`, `connection:x` or a secret's name.

        Raises Missing for one that is nowhere.
        """
        found = {}
        for variable, reference in references.items():
            kind, _, name = reference.rpartition(":")
            section = {"connection": "connections", "": "secrets"}.get(kind, "variables")
            value = self.sections[section].get(name)
            if value is not None:
                found[variable] = _connection(name, value) if kind == "connection" else _text(value)
            elif variable in os.environ:
                found[variable] = os.environ[variable]
            elif kind != "variable?":
                place = f"{section} of {self.file}" if self.file else f"{section} of a file given with --variables"
                raise Missing(f"{section[:-1]} {name} is missing: put it under {place}, or set {variable}.")
        return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _connection(name: str, value: Any) -> str:
    """The fields of a connection as JSON; a URL is taken apart. Raises SdkError."""
    if isinstance(value, str):
        parts = urlsplit(value)
        value = {
            "type": parts.scheme, "host": parts.hostname or "", "login": unquote(parts.username or ""),
            "password": unquote(parts.password or ""), "port": parts.port, "schema": unquote(parts.path[1:]),
            "extra": dict(parse_qsl(parts.query)),
        }  # fmt: skip
    if not isinstance(value, dict) or (unknown := sorted(value.keys() - set(_FIELDS))):
        said = f" unknown are {', '.join(unknown)}." if isinstance(value, dict) else ""
        raise SdkError(f"connection {name}: give a URL or an object of {', '.join(_FIELDS)};{said}")
    return json.dumps(value, ensure_ascii=False)
