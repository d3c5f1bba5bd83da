"""PostgreSQL and Redis that somebody else runs: whether they answer, so that people are told when they do not."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

LOOK_SECONDS = 2.0
PORTS = {"postgres": 5432, "redis": 6379}


@dataclass(frozen=True)
class Place:
    """Where a server listens: a TCP address, or the path of a socket."""

    host: str
    port: int

    @classmethod
    def of(cls, name: str, url: str) -> "Place":
        """The place in a DATABASE_URL ("postgres") or REDIS_URL ("redis") that manage.py check_servers has passed."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        if parts.scheme == "unix":
            return cls(unquote(parts.path), 0)
        host = parts.hostname or query.get("host") or "localhost"
        if "%" in host:
            host = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
        port = parts.port or int(query.get("port", PORTS[name]))
        return cls(f"{host}/.s.PGSQL.{port}", 0) if host.startswith("/") else cls(host, port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    async def answers(self) -> bool:
        """True when a connection can be opened; nothing is said over it."""
        try:
            async with asyncio.timeout(5.0):
                if self.port:
                    _, writer = await asyncio.open_connection(self.host, self.port)
                else:
                    _, writer = await asyncio.open_unix_connection(self.host)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True


class OutsideServers:
    """Looks at the servers every two seconds; `tell` gets what changed, `on_change` is called after that."""

    def __init__(self, tell: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self.tell = tell
        self.on_change = on_change
        self.places: dict[str, Place] = {}
        self.away: set[str] = set()

    async def watch(self) -> None:
        """For ever."""
        while True:
            for name, place in self.places.items():
                if await place.answers() == (name in self.away):
                    self.away ^= {name}
                    outcome = (
                        "does not answer; work waits until it does" if name in self.away else "answers again"
                    )
                    self.tell(f"{name} at {place} {outcome}")
                    self.on_change()
            await asyncio.sleep(LOOK_SECONDS)

    def describe(self) -> dict[str, dict[str, str]]:
        """Address and state of each, for `status`."""
        return {
            name: {"address": str(place), "state": "away" if name in self.away else "ready"}
            for name, place in self.places.items()
        }
