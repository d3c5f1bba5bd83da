"""The portal as a whole: what runs, in which order it starts and stops, and what is done between."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import Console, Refusal
from .environment import Environment
from .folder import DataFolder
from .outside import OutsideServers, Place
from .processes import write_file
from .servers import Postgres, Redis
from .supervisor import Service, Supervisor

STOP_ORDER = (("agent",), ("beat", "worker"), ("web",), ("redis",), ("postgres",))
# What would change the meaning of a Python that we start, or hand the portal's secrets to the agent.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE")
AGENT_HIDDEN = ("DATABASE_URL", "REDIS_URL", "RMPORTAL_SECRET_KEY", "RMPORTAL_OIDC", "RMCTL_TOKEN")
AGENT_REVOKED = 3
WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Address:
    """Where the web process listens."""

    host: str
    port: int

    @property
    def local_url(self) -> str:
        """How processes of this machine reach it."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def check_free(self) -> None:
        """Refusal when something listens there already, or the port may not be used."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
                probe.listen(1)
            except socket.gaierror:
                raise Refusal(f"--host {self.host}: this is no address of this machine.") from None
            except OSError as error:
                raise Refusal(self._explain(error)) from None

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"Port {self.port} on {self.host} is taken by another program; nothing was started. "
                f"Choose another, for example --port {free_port(self.host)}."
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"Port {self.port} may only be used by root. Choose one above 1023 with --port."
        return f"{self.host}:{self.port} cannot be listened on: {error.strerror}. Choose with --host and --port."

    async def answers(self) -> bool:
        """True when GET /healthz is answered with 200."""
        url_host = self.local_url.removeprefix("http://").rsplit(":", 1)[0]
        reader, writer = await asyncio.open_connection(url_host.strip("[]"), self.port)
        try:
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {url_host}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in await reader.readline()
        finally:
            writer.close()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Stack:
    """A portal on one data folder. `running()` has it up for as long as the body of the `async with` runs.

    `isolated` ignores what the caller's environment says about another portal; `durable=False` leaves out fsync.
    """

    def __init__(
        self,
        environment: Environment,
        data: DataFolder,
        console: Console,
        address: Address | None = None,
        durable: bool = True,
        isolated: bool = False,
    ) -> None:
        self.environment = environment
        self.root = environment.root
        self.data = data
        self.console = console
        self.address = address
        self.durable = durable
        self.interrupted = asyncio.Event()
        self.hurry = asyncio.Event()
        self.received = 0
        self.command_has_terminal = False
        self.variables = child_environment(data, address, isolated)
        self._postgres: Postgres | None = None
        self._began = time.time()
        self.supervisor = Supervisor(data.run, data.log, self._tell, self._on_change)
        self.outside = OutsideServers(self._tell, self.supervisor.publish)

    # Start and stop

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stack"]:
        """Servers and, with an address, the portal itself; everything is stopped at the end, in order."""
        self._listen_for_signals()
        guards = [
            # Without its servers the worker cannot get on, and would not after a restart.
            asyncio.create_task(self.supervisor.guard(excused=lambda: bool(self.outside.away))),
            asyncio.create_task(self.outside.watch()),
        ]
        try:
            await self._or_interrupted(self._start())
            yield self
        finally:
            for guard in guards:
                guard.cancel()
            await self._stop()

    async def _start(self) -> None:
        await self.start_servers()
        if self.address is not None:
            await self._prepare()
            await self._start_web(self.address)
            await self._start_rest(self.address)

    async def start_servers(self) -> None:
        """PostgreSQL and Redis together, each unless the environment names an outside one, which is only asked."""
        began = time.monotonic()
        packages = self.environment.packages
        starts = []
        titles = []
        outside: dict[str, str] = {}
        if self.variables.get("DATABASE_URL"):
            outside["postgres"] = self.variables["DATABASE_URL"]
            if (self.data.postgres / "PG_VERSION").is_file():
                self.console.warning(f"DATABASE_URL is set: the database in {self.data.postgres} is left alone")
        else:
            if self.data.database_is_outside():
                raise Refusal(
                    f"The portal in {self.data.path} has its database on an outside server: set DATABASE_URL as "
                    "before, or choose another folder with --data."
                )
            self.console.transient("PostgreSQL")
            self._postgres = Postgres(packages, self.data, self.durable)
            self._postgres.initialise()
            self.variables["DATABASE_URL"] = self._postgres.url()
            starts.append(self.supervisor.start(self._postgres.service()))
            titles.append("PostgreSQL 18")
        if self.variables.get("REDIS_URL"):
            outside["redis"] = self.variables["REDIS_URL"]
        else:
            redis = Redis(packages, self.data)
            self.variables["REDIS_URL"] = redis.url()
            starts.append(self.supervisor.start(redis.service()))
            titles.append("Redis 6.2")
        await asyncio.gather(*starts)
        if titles:
            self.console.success(f"{' and '.join(titles)} ready", time.monotonic() - began)
        if outside:
            await self._check_servers(list(outside))
            self.outside.places = {name: Place.of(name, url) for name, url in outside.items()}

    async def _check_servers(self, names: list[str]) -> None:
        """Ask the outside servers whether they can be used; Refusal with what is wrong."""
        began = time.monotonic()
        self.console.transient("asking the servers")
        lines: list[str] = []
        argv = [str(self.environment.python), "manage.py", "check_servers", *names]
        if await self.supervisor.run(argv, self.variables, str(self.root), lines.append):
            told = "\n".join(line.removeprefix("CommandError: ").removeprefix("manage.py: ") for line in lines[-5:])
            raise Refusal(f"{told}\nThe portal was not started.", 2)
        self.console.success(" and ".join(lines), time.monotonic() - began)

    async def _prepare(self) -> None:
        """Migrations, static files, base world: one process, left out when nothing has changed since the last time."""
        token_file = self.data.run / "agent.token"
        joined = (self.data.agent / "credential.json").is_file()
        # The stamp lives with the database it speaks of; an outside one is always asked.
        stamp = self.data.postgres / "rmportal.prepared" if self._postgres is not None else None
        state = source_state(self.root)
        collected = (self.data.path / "static" / ".collected").is_file()
        if joined and collected and stamp is not None and stamp.is_file() and stamp.read_text() == state:
            return
        arguments = ["prepare", *([] if joined else ["--agent-token-file", str(token_file)])]
        with self.console.step("Database, static files and base world"):
            said = await self.manage(*arguments)
            if stamp is not None:
                write_file(stamp, state)
        for line in said:
            self.console.line(f"  {line}")

    async def manage(self, *arguments: str) -> list[str]:
        """Run a management command; returns its lines of output. Refusal with their end when it fails."""
        lines: list[str] = []
        code = await self.supervisor.run(
            [str(self.environment.python), "manage.py", *arguments],
            self.variables,
            str(self.root),
            lines.append,
        )
        if code:
            told = "\n".join(f"  {line}" for line in lines[-25:])
            raise Refusal(f"manage.py {arguments[0]} failed with status {code}:\n{told}", 1)
        return lines

    async def _start_web(self, address: Address) -> None:
        options = ["--host", address.host, "--port", str(address.port), "--ws", "websockets"]
        options += ["--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "3"]
        module, progress = ["uvicorn", "rmportal.asgi:application", *options], self.data.run / "web.progress"
        with self.console.step("Web ready"):
            await self.supervisor.start(self._python("web", module, 6.0, ready=address.answers, progress=progress))

    async def _start_rest(self, address: Address) -> None:
        began = time.monotonic()
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = ["worker", "--pool", "threads", "--concurrency", "6", "--loglevel", "warning", *quiet]
        celery = ["celery", "-A", "rmportal"]
        beat = ["beat", "-s", str(self.data.run / "beat"), "--loglevel", "warning"]
        progress = self.data.run / "worker.progress"
        await self.supervisor.start(self._python("worker", [*celery, *worker], 10.0, progress=progress))
        await self.supervisor.start(self._python("beat", [*celery, *beat], 3.0))
        await self._join(address)
        agent = ["rmctl", "agent", "run", "--data", str(self.data.agent), "--url", address.local_url]
        revoked = (
            "the portal revoked its credential. To join this machine again: ./portal stop, "
            f"remove {self.data.agent / 'credential.json'} and start again."
        )
        await self.supervisor.start(self._python("agent", agent, 5.0, final={AGENT_REVOKED: revoked}))
        self.console.success("Worker, beat and agent started", time.monotonic() - began)

    async def _join(self, address: Address) -> None:
        """Trade the one-time token for the local agent's own credential, once."""
        token_file = self.data.run / "agent.token"
        if (self.data.agent / "credential.json").is_file():
            return
        arguments = ["join", address.local_url, "--token", "-", "--data", str(self.data.agent)]
        lines: list[str] = []
        code = await self.supervisor.run(
            [str(self.environment.python), "-m", "rmctl", "agent", *arguments],
            agent_environment(self.variables),
            str(self.root),
            lines.append,
            stdin=token_file,
        )
        token_file.unlink(missing_ok=True)
        if code:
            told = "\n".join(f"  {line}" for line in lines[-15:])
            raise Refusal(f"The local agent could not join (status {code}):\n{told}", 1)

    def _python(
        self,
        name: str,
        module: list[str],
        stop_seconds: float,
        ready: Callable[[], Any] | None = None,
        final: dict[int, str] | None = None,
        progress: Path | None = None,
    ) -> Service:
        variables = agent_environment(self.variables) if name == "agent" else self.variables
        if progress is not None:
            variables = {**variables, "RMPORTAL_PROGRESS": str(progress)}
        return Service(
            name=name,
            argv=[str(self.environment.python), "-m", *module],
            environment={**variables, "RMPORTAL_PROCESS": name},
            folder=str(self.root),
            ready=ready,
            stop_steps=((signal.SIGTERM, stop_seconds),),
            final=final,
            progress=progress,
        )

    async def _stop(self) -> None:
        members = [name for names in STOP_ORDER for name in names if name in self.supervisor.members]
        if self.address is not None and members:
            self.console.transient("stopping")
        began = time.monotonic()
        for names in STOP_ORDER:
            await asyncio.gather(*(self.supervisor.stop(name, self.hurry) for name in names))
        if self.address is not None and members:
            self.console.success(f"Stopped {', '.join(members)}", time.monotonic() - began)

    # Signals

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        """The first one stops in order; a second one stops at once."""
        if number == signal.SIGINT and self.command_has_terminal:
            # The terminal has sent it to the command, too, which knows what it means: a shell drops the line.
            return
        if self.interrupted.is_set():
            self.hurry.set()
        self.received = number
        self.interrupted.set()

    async def _or_interrupted(self, work: Any) -> Any:
        """Await `work` unless a signal asks us to stop first: then it is cancelled and Interrupted raised."""
        task = asyncio.ensure_future(work)
        signalled = asyncio.create_task(self.interrupted.wait())
        try:
            await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Interrupted(self.received)
        finally:
            signalled.cancel()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Refusal):
                    await task

    async def command(self, argv: list[str], on_line: Callable[[str], None] | None = None, **options: Any) -> int:
        """Run a command in the portal's environment until it ends or a signal comes."""
        run = self.supervisor.run(argv, self.variables, str(self.root), on_line, **options)
        return int(await self._or_interrupted(run))

    async def foreground(self, argv: list[str]) -> int:
        """Like `command`, but Ctrl-C is the command's own affair."""
        self.command_has_terminal = True
        try:
            return await self.command(argv)
        finally:
            self.command_has_terminal = False

    # What others see

    def _tell(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with open(self.data.log / "portal.log", "a") as log:
            log.write(f"{stamp} {text}\n")
        if not self.interrupted.is_set():
            self.console.warning(text)

    def _on_change(self, services: dict[str, dict[str, Any]]) -> None:
        state = {
            "pid": os.getpid(),
            "url": self.variables["RMPORTAL_URL"] if self.address else None,
            "local_url": self.address.local_url if self.address else None,
            "started_at": self._began,
            "variables": {name: self.variables.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")},
            "services": services,
            "outside": self.outside.describe(),
        }
        write_file(self.data.state_file, json.dumps(state))
        self.supervisor.write_pids(self.data.pids_file)


class Interrupted(Exception):
    """A signal asked the launcher to stop; `status` is what it exits with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def child_environment(data: DataFolder, address: Address | None, isolated: bool = False) -> dict[str, str]:
    """The variables of docs/architecture.md for everything we start, over our own environment."""
    hidden = (*FOREIGN, "DATABASE_URL", "REDIS_URL") if isolated else FOREIGN
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not (isolated and name.startswith(("RMPORTAL_", "RMCTL_")))
    }
    variables["RMPORTAL_DATA"] = str(data.path)
    variables["DJANGO_SETTINGS_MODULE"] = "rmportal.settings"
    variables["PYTHONUNBUFFERED"] = "1"
    # Threads would otherwise each get an allocator arena of their own and never give it back.
    variables.setdefault("MALLOC_ARENA_MAX", "2")
    if not variables.get("RMPORTAL_SECRET_KEY"):
        # Empty would hide the file in the data folder.
        variables.pop("RMPORTAL_SECRET_KEY", None)
    if address is not None:
        variables.setdefault("RMPORTAL_URL", address.local_url)
        if address.host in WILDCARDS:
            variables.setdefault("RMPORTAL_ALLOWED_HOSTS", ",".join(own_names()))
    return variables


def agent_environment(variables: dict[str, str]) -> dict[str, str]:
    """What the local agent gets: nothing that opens the portal's own doors."""
    return {name: value for name, value in variables.items() if name not in AGENT_HIDDEN}


def own_names() -> list[str]:
    """The names and addresses under which this machine may be asked for."""
    names = ["127.0.0.1", "localhost", "[::1]", socket.gethostname(), socket.getfqdn()]
    with contextlib.suppress(OSError):
        for family, _, _, _, found in socket.getaddrinfo(socket.gethostname(), None):
            names.append(f"[{found[0]}]" if family == socket.AF_INET6 else str(found[0]))
    return list(dict.fromkeys(names))


def source_state(root: Path) -> str:
    """Changes when code, static files or the lock change: what migrations and static files are made from."""
    state = hashlib.sha256((root / "requirements.txt").read_bytes())
    for top in ("apps", "engine", "rmportal", "rmctl", "static", "templates"):
        for folder, folders, files in os.walk(root / top):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(files):
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(path)
                    state.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return state.hexdigest()
