"""The data folder: whose it is, who uses it now, and what stands where in it."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

from .console import Refusal
from .processes import Identified, end_all, inside, write_file

MARKER = ".rmportal"
# sun_path holds 108 bytes with the final zero (unix(7)).
SOCKET_PATH_LIMIT = 107
LONGEST_SOCKET = ".s.PGSQL.5432.lock"
# What a leftover of a killed launcher is asked first; everything else gets SIGTERM.
LEFTOVER_SIGNALS = {"postgres": signal.SIGINT}


class DataFolder:
    """One portal's state. `open` makes or checks it, `acquire` makes this process its only user."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.run = self.path / "run"
        self.log = self.path / "log"
        self.agent = self.path / "agent"
        self.postgres = self.path / "postgres"
        self.redis = self.path / "redis"
        self.state_file = self.run / "state.json"
        self.pids_file = self.run / "pids.json"
        self.pid_file = self.run / "portal.pid"
        # Seconds that processes of a killed server get to notice by themselves.
        self.patience = 5.0
        self._lock: int | None = None
        self._elsewhere: list[Path] = []

    def exists(self) -> bool:
        return (self.path / MARKER).is_file()

    def database_is_outside(self) -> bool:
        """True when a portal has run here that had its database on a server of its own."""
        return (self.agent / "credential.json").is_file() and not self.postgres.exists()

    def open(self) -> None:
        """Make the folder, or check that it is one of ours; Refusal for a foreign or unusable one."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.exists():
                # Empty folders are nobody's work: a mount point, or what a test run of the settings made.
                if any(files for _, _, files in os.walk(self.path)):
                    raise Refusal(
                        f"{self.path} is not empty and is not a data folder of RMPortal: nothing was changed. "
                        "Choose another with --data."
                    )
                write_file(self.path / MARKER, json.dumps({"format": 1}) + "\n")
            # Others may pass, not list: PostgreSQL and tasks run as other users when root starts the portal.
            for folder, mode in (
                (self.path, 0o711),
                (self.run, 0o711),
                (self.log, 0o700),
                (self.redis, 0o700),
            ):
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
            (self.path / "storage").mkdir(mode=0o700, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise Refusal(
                f"The data folder {self.path} cannot be used: {error.strerror}. Choose one with --data."
            ) from error

    def acquire(self) -> None:
        """Lock the folder for this process; Refusal when another portal uses it."""
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + 1.0
        while not _locked(descriptor):
            # `status` holds the lock for a moment to see whether it is free; a portal has a pid file beside it.
            if Identified.read(self.pid_file) is not None or time.monotonic() > deadline:
                os.close(descriptor)
                state = self.state()
                where = f"{state.get('url') or 'starting'} (pid {state.get('pid', 'unknown')})"
                raise Refusal(
                    f"A portal already runs on {self.path}: {where}.\n"
                    "Open that address, stop it with ./portal stop, or start another beside it with --data and --port."
                )
            time.sleep(0.02)
        self._lock = descriptor
        me = Identified.of(os.getpid())
        assert me is not None
        me.write(self.pid_file)

    def release(self) -> None:
        """Give the folder free; what describes the running portal goes first."""
        if self._lock is not None:
            for path in (self.state_file, self.pids_file, self.pid_file):
                path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        for folder in self._elsewhere:
            # A killed server's socket may still be in it; the next start looks after that.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def running(self) -> Identified | None:
        """The launcher that uses this folder now, if one does."""
        try:
            descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if _locked(descriptor) else Identified.read(self.pid_file)
        finally:
            os.close(descriptor)

    def state(self) -> dict[str, Any]:
        """What the running launcher last wrote about itself; empty when there is nothing."""
        try:
            content = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def end_leftovers(self) -> list[str]:
        """End what a killed launcher left running, and only that; returns the names.

        A pid file counts only when the start time in it is that of the process with this pid.
        """
        found = {}
        for path in sorted(self.run.glob("*.pid")):
            if path != self.pid_file:
                process = Identified.read(path)
                if process is not None:
                    found[path.stem] = process
                else:
                    path.unlink(missing_ok=True)
        for name, process in found.items():
            process.end((LEFTOVER_SIGNALS.get(name, signal.SIGTERM), 10.0), (signal.SIGKILL, 5.0))
            (self.run / f"{name}.pid").unlink(missing_ok=True)
        # Backends outlive a killed postmaster for a moment and would keep a new one from starting.
        for folder in (self.postgres, self.redis):
            end_all(inside(folder), (0, self.patience), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        return list(found)

    def end_tasks(self) -> int:
        """End the agent's tasks, which outlive a stopped portal by design; returns how many processes there were."""
        tasks = inside(self.agent, mention=True)
        end_all(tasks, (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))
        return len(tasks)

    def secret_key(self) -> None:
        """Make the secret key once, readable by the owner only."""
        path = self.path / "secret_key"
        if not path.is_file() or len(path.read_text().strip()) < 32:
            write_file(path, secrets.token_urlsafe(48) + "\n")

    def sockets(self, name: str) -> Path:
        """A folder for a server's socket: in the data folder, or under the temporary folder where the path is too long.

        Raises Refusal when the fall-back exists and belongs to somebody else.
        """
        folder = self.run / name
        if len(os.fsencode(folder / LONGEST_SOCKET)) > SOCKET_PATH_LIMIT:
            digest = hashlib.sha256(os.fsencode(os.path.realpath(self.path))).hexdigest()[:12]
            folder = Path(tempfile.gettempdir()) / f"rmportal-{digest}-{name}"
            if len(os.fsencode(folder / LONGEST_SOCKET)) > SOCKET_PATH_LIMIT:
                folder = Path("/tmp") / folder.name
            self._elsewhere.append(folder)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        # As root the folder may belong to the account of PostgreSQL, which root gave it to.
        if not stat.S_ISDIR(found.st_mode) or (os.geteuid() != 0 and found.st_uid != os.geteuid()):
            raise Refusal(f"{folder} belongs to somebody else: remove it, or choose a shorter data folder with --data.")
        folder.chmod(0o700)
        return folder

    def delete(self) -> None:
        """Remove everything; the caller made sure that nothing runs."""
        for name in ("postgres", "redis"):
            folder = self.sockets(name)
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.path)


def _locked(descriptor: int) -> bool:
    """Try to lock a file without waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
