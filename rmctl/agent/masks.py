"""Secrets in logs: their bytes are replaced by as many asterisks, so that offsets and sizes stay what they are.

A secret that lies across two chunks is found too: a chunk is read with what surrounds it, and while a task runs, the
end of its log is held back as long as it could be the beginning of a secret.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]

# Shorter ones would black out half of a log and are guessed anyway.
MIN_BYTES = 4


class Masks:
    """The secrets of one task."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {form.encode() for value in values for form in _forms(value)}
        self.secrets = sorted((secret for secret in found if len(secret) >= MIN_BYTES), key=len, reverse=True)
        self.longest = len(self.secrets[0]) if self.secrets else 0
        self._pattern = re.compile(b"|".join(re.escape(secret) for secret in self.secrets))

    def __bool__(self) -> bool:
        return bool(self.secrets)

    def hide(self, data: bytes) -> bytes:
        """The data with asterisks for secrets."""
        return self._pattern.sub(lambda match: b"*" * len(match[0]), data) if self.secrets else data

    def held(self, tail: bytes) -> int:
        """How many bytes at the end of a log could be the beginning of a secret."""
        for length in range(min(len(tail), self.longest - 1), 0, -1):
            end = tail[-length:]
            if any(secret.startswith(end) and len(secret) > length for secret in self.secrets):
                return length
        return 0


NOTHING = Masks(())


def _forms(value: str) -> Iterator[str]:
    """A secret as programs print it: as it is, in a URL, in JSON, and line by line."""
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    lines = value.splitlines()
    if len(lines) > 1:
        yield from lines


def secret_texts(names: Iterable[str], values: Mapping[str, str]) -> Iterator[str]:
    """The secrets in variables of a task: the values, or what is secret in a connection."""
    for name in names:
        text = values.get(name)
        if text is None:
            continue
        if not name.startswith("RM_CONNECTION_"):
            yield text
            continue
        fields = json.loads(text)
        yield str(fields.get("password") or "")
        yield from (value for value in (fields.get("extra") or {}).values() if isinstance(value, str))


def of_process(pid: int, names: Iterable[str]) -> dict[str, str]:
    """The variables of a running task, for an agent that was started again: its journal has no secrets."""
    wanted = list(names)
    found: dict[str, str] = {}
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return found
    for process in processes:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as stream:
                pairs = (os.fsdecode(pair).partition("=") for pair in stream.read().split(b"\0"))
                found |= {name: value for name, _, value in pairs if name in wanted}
        except OSError:
            continue
        if len(found) == len(wanted):
            break
    return found
