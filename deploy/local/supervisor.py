"""Process supervision: start, know when ready, restart when dead, stop in order. One thread, one event loop."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from .console import Refusal
from .identity import Identity
from .processes import Identified, die_with_parent, write_file

READY_POLL_SECONDS = 0.02
# The first restart follows at once; a process that dies again and again waits twice as long each time.
BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 30.0
PROGRESS_SECONDS = 30.0
LOG_ROTATE_BYTES = 5 * 2**20
LOG_KEEP = 3


@dataclass(frozen=True)
class Service:
    """What is to run. `ready` may raise OSError for "not yet"; without it a started process counts as ready."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    identity: Identity | None = None
    before: Callable[[], None] | None = None
    ready: Callable[[], Awaitable[bool]] | None = None
    stop_steps: tuple[tuple[int, float], ...] = ((signal.SIGTERM, 10.0),)
    death_signal: int = signal.SIGTERM
    # Exit statuses after which a restart cannot help, with what to tell people.
    final: Mapping[int, str] | None = None
    # A file that the process touches while it gets on; one that lives but does not is killed and started anew.
    progress: Path | None = None


class Member:
    """A service and its present process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "stopped"
        self.restarts = 0
        self.failures = 0
        self.started_at = 0.0
        self.ended = asyncio.Event()
        self.watch: asyncio.Task[None] | None = None
        self.stopping = False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None


class Supervisor:
    """Runs services and one-off commands; `tell` gets what people should know, `describe` what `status` shows."""

    def __init__(
        self,
        run: Path,
        log: Path,
        tell: Callable[[str], None],
        on_change: Callable[[dict[str, dict[str, Any]]], None] | None = None,
    ) -> None:
        self.run_folder = run
        self.log_folder = log
        self.tell = tell
        self.on_change = on_change
        self.members: dict[str, Member] = {}
        self.commands: dict[subprocess.Popen[bytes], asyncio.Event] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    # Services

    async def start(self, service: Service, patience: float = 60.0) -> None:
        """Start a service and wait until it is ready; Refusal with the end of its log when it ends or is too slow."""
        member = self.members[service.name] = Member(service)
        rotate(self.log_folder / f"{service.name}.log")
        self._launch(member)
        watch = member.watch
        if watch is None:
            return
        ended = asyncio.create_task(member.ended.wait())
        try:
            await asyncio.wait({watch, ended}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if member.state == "ready":
                return
            why = "ended while starting" if member.ended.is_set() else f"was not ready after {patience:g} s"
            log = self.log_folder / f"{service.name}.log"
            await self.stop(service.name)
            raise Refusal(f"{service.name} {why}. The end of {log}:\n{tail(log, 15)}", 1)
        finally:
            ended.cancel()

    def _launch(self, member: Member) -> None:
        service = member.service
        if service.before is not None:
            service.before()
        with open(self.log_folder / f"{service.name}.log", "ab") as log:
            member.process = subprocess.Popen(
                service.argv,
                env=dict(service.environment),
                cwd=service.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(enter, os.getpid(), service.death_signal, service.identity),
            )
        identified = Identified.of(member.process.pid)
        if identified is not None:
            identified.write(self.run_folder / f"{service.name}.pid")
        member.ended.clear()
        member.started_at = time.time()
        member.state = "ready" if service.ready is None else "starting"
        if service.ready is not None:
            member.watch = asyncio.create_task(self._watch(member, service.ready))
        self.publish()

    async def _watch(self, member: Member, ready: Callable[[], Awaitable[bool]]) -> None:
        """Ask until it is ready."""
        while not member.ended.is_set():
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                if await asyncio.wait_for(ready(), 5.0):
                    member.state = "ready"
                    self.publish()
                    return
            await asyncio.sleep(READY_POLL_SECONDS)

    def _reap(self) -> None:
        """Something ended: find out what, and restart it when it should run."""
        for member in self.members.values():
            if member.process is not None and not member.ended.is_set() and member.process.poll() is not None:
                self._on_end(member, member.process.returncode)
        for process, ended in list(self.commands.items()):
            if process.poll() is not None:
                ended.set()

    def _on_end(self, member: Member, code: int) -> None:
        service = member.service
        was_ready = member.state == "ready"
        member.state = "stopped"
        member.ended.set()
        if member.watch is not None:
            member.watch.cancel()
        (self.run_folder / f"{service.name}.pid").unlink(missing_ok=True)
        if not member.stopping and service.final is not None and code in service.final:
            member.state = "refused"
            self.tell(f"{service.name} stopped for good: {service.final[code]}")
        elif not member.stopping and (was_ready or member.restarts):
            lived = time.time() - member.started_at
            member.failures = 0 if lived > STEADY_SECONDS else member.failures
            delay = BACKOFF_SECONDS[min(member.failures, len(BACKOFF_SECONDS) - 1)]
            member.failures += 1
            member.restarts += 1
            member.state = "restarting"
            self.tell(f"{service.name} ended ({ending(code)}); restarting it{f' in {delay:g} s' if delay else ''}")
            asyncio.get_running_loop().call_later(delay, self._restart, member)
        self.publish()

    def _restart(self, member: Member) -> None:
        if member.stopping:
            return
        try:
            self._launch(member)
        except OSError as error:
            # A full process table or disk passes; keep trying with the same patience.
            self.tell(f"{member.service.name} cannot be started: {error.strerror}")
            member.failures += 1
            delay = BACKOFF_SECONDS[min(member.failures, len(BACKOFF_SECONDS) - 1)]
            asyncio.get_running_loop().call_later(delay, self._restart, member)

    async def guard(
        self, patience: float = PROGRESS_SECONDS, excused: Callable[[], bool] = lambda: False
    ) -> None:
        """For ever: kill services that live without getting on, so that they are restarted.

        While `excused` they cannot get on, and have their whole time again afterwards.
        """
        since = 0.0
        while True:
            await asyncio.sleep(patience / 6)
            if excused():
                since = time.time()
            for member in self.members.values():
                if member.service.progress is None or member.state != "ready" or member.process is None:
                    continue
                touched = max(member.started_at, since)
                with suppress(OSError):
                    touched = max(touched, member.service.progress.stat().st_mtime)
                if time.time() - touched > patience:
                    self.tell(f"{member.service.name} has done nothing for {patience:g} s")
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(member.process.pid, signal.SIGKILL)

    async def stop(self, name: str, hurry: asyncio.Event | None = None) -> None:
        """End a service: its own signals with their deadlines, then SIGKILL. `hurry` cuts the waiting short."""
        member = self.members.get(name)
        if member is None:
            return
        member.stopping = True
        if member.process is None or member.ended.is_set():
            member.state = "stopped"
            return
        member.state = "stopping"
        self.publish()
        for number, seconds in (*member.service.stop_steps, (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.process.pid, number)
            if await self._ended_within(member, seconds, hurry):
                return

    async def _ended_within(self, member: Member, seconds: float, hurry: asyncio.Event | None) -> bool:
        waits = [asyncio.create_task(member.ended.wait())]
        if hurry is not None:
            waits.append(asyncio.create_task(hurry.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not member.ended.is_set() and hurry is not None and hurry.is_set():
            # The next signal follows at once, but it needs a moment to work.
            with suppress(TimeoutError):
                await asyncio.wait_for(member.ended.wait(), 0.5)
        return member.ended.is_set()

    # One-off commands

    async def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        on_line: Callable[[str], None] | None = None,
        capture_stderr: bool = True,
        stdin: Path | None = None,
    ) -> int:
        """Run a command to its end; returns its exit status. With `on_line` each line of output goes there.

        Without `on_line` it shares our terminal; with it, input comes from the file `stdin`, if named. Cancelled,
        it takes the command down with it.
        """
        piped = on_line is not None
        with open(stdin or os.devnull, "rb") as given:
            process = subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=folder,
                stdin=given if piped else None,
                stdout=subprocess.PIPE if piped else None,
                stderr=subprocess.STDOUT if piped and capture_stderr else None,
                start_new_session=piped,
                preexec_fn=partial(enter, os.getpid(), signal.SIGTERM, None),
            )
        ended = self.commands[process] = asyncio.Event()
        if process.poll() is not None:
            ended.set()
        try:
            if on_line is not None and process.stdout is not None:
                await read_lines(process.stdout, on_line)
            await ended.wait()
            return process.returncode
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 5.0)
                if process.poll() is None:
                    process.kill()
                    await ended.wait()
            del self.commands[process]
            if process.stdout is not None:
                process.stdout.close()

    # What others see

    def publish(self) -> None:
        """Tell `on_change` how everything stands now."""
        if self.on_change is not None:
            self.on_change(self.describe())

    def describe(self) -> dict[str, dict[str, Any]]:
        """State of each service: pid, state, restarts, started_at (Unix seconds)."""
        return {
            name: {
                "pid": None if member.ended.is_set() else member.pid,
                "state": member.state,
                "restarts": member.restarts,
                "started_at": member.started_at,
            }
            for name, member in self.members.items()
        }

    def write_pids(self, path: Path) -> None:
        """Write name → pid of what runs, as JSON."""
        living = {name: member.pid for name, member in self.members.items() if not member.ended.is_set()}
        write_file(path, json.dumps(living), 0o644)


def enter(parent: int, death_signal: int, identity: Identity | None) -> None:
    """In a child before exec: its identity first, since changing it clears the parent-death signal."""
    if identity is not None:
        identity.assume()
    die_with_parent(parent, death_signal)


async def read_lines(pipe: IO[bytes], on_line: Callable[[str], None]) -> None:
    """Hand each line of a pipe to `on_line` until its end."""
    reader = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while line := await reader.readline():
            on_line(line.decode(errors="replace").rstrip("\n"))
    finally:
        transport.close()


def ending(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def rotate(path: Path) -> None:
    """Put a long log aside, keeping the last few."""
    if path.is_file() and path.stat().st_size > LOG_ROTATE_BYTES:
        for number in range(LOG_KEEP - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, indented."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 32768))
            text = file.read().decode(errors="replace")
    except OSError:
        return "  (there is no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
