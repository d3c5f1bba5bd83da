"""Where the contract suite runs: simulated nodes, and a real portal process with a real agent process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode
from urllib.request import urlopen

from django.conf import settings
from django.core.files.storage import storages
from django.db import connection

from apps.core.actors import SYSTEM
from apps.execution.backends import BACKENDS, Backend
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster, Node
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.jobs.states import JOB_ACTIVE
from rmctl.agent.main import join
from tests.personas import World
from tests.work import cycle, fresh, pump, simulated_node

PROJECT = Path(__file__).resolve().parents[3]
RUN = "import sys; from rmctl.agent.main import run; sys.exit(run(None, sys.argv[1]))"
PATIENCE = 30.0
STORES = ("logs", "artifacts", "checkpoints", "bundles")
T = TypeVar("T")


def eventually(found: Callable[[], T], what: str) -> T:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.02)
    return answer


class Place(Protocol):
    """A node with its backend; `settle` brings a job to one of the states."""

    backend: Backend
    node: Node

    def settle(self, job: Job, *states: str) -> Job: ...

    def close(self) -> None: ...


class Simulated:
    """A node of the fake backend."""

    def __init__(self, world: World) -> None:
        self.backend = BACKENDS[Cluster.Kind.FAKE]
        self.node = simulated_node(world, cpu=8000)

    def settle(self, job: Job, *states: str) -> Job:
        """Time passes only as far as the job has to come."""
        for _ in range(10):
            cycle()
            pump()
            if fresh(job).state in states:
                return fresh(job)
        raise AssertionError(f"{fresh(job).state} {fresh(job).detail}, not {states}")

    def close(self) -> None:
        """Nothing lives outside of the rows."""


class Real:
    """The portal's own ASGI process on the test database, and an agent that joined with a one-time token."""

    def __init__(self, world: World) -> None:
        self.backend = BACKENDS[Cluster.Kind.AGENTS]
        # Not pytest's own temporary folder: that one keeps other users out, and tasks run as another user.
        self.folder = Path(tempfile.mkdtemp(prefix="rmportal-backend-"))
        os.chmod(self.folder, 0o711)
        self._kept = {name: settings.STORAGES[name]["OPTIONS"]["location"] for name in STORES}
        self._store({name: self.folder / "data" / "storage" / name for name in self._kept})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115 - the processes write to it until `close`
        self.portal: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        try:
            self.start_portal()
            _, token = fleet.create_join_token(actor=SYSTEM, cluster=world.cluster)
            self.data = self.folder / "agent"
            self.node = Node.objects.get(pk=join(self.url, token, "real-1", str(self.data)))
            self.start_agent()
        except BaseException:
            self._end()
            raise

    def _store(self, locations: dict[str, Any]) -> None:
        for name, location in locations.items():
            settings.STORAGES[name]["OPTIONS"]["location"] = location
        storages._storages.clear()  # type: ignore[attr-defined]

    def start_portal(self) -> None:
        """Start the web process and wait until it answers."""
        values = connection.settings_dict
        where = {key.lower(): str(values[key]) for key in ("HOST", "PORT", "USER", "PASSWORD") if values[key]}
        environment = {
            **os.environ,
            "DATABASE_URL": f"postgresql:///{values['NAME']}?{urlencode(where)}",
            "REDIS_URL": settings.REDIS_URL,
            "RMPORTAL_DATA": str(self.folder / "data"),
            "RMPORTAL_URL": self.url,
            "RMPORTAL_SECRET_KEY": settings.SECRET_KEY,
        }
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning"]
        command = [sys.executable, "-m", "uvicorn", "rmportal.asgi:application", *options]
        self.portal = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=self.log, stderr=self.log)

        def answers() -> bool:
            try:
                with urlopen(f"{self.url}/healthz", timeout=1) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        eventually(answers, "the portal to answer")

    def kill_portal(self) -> None:
        assert self.portal is not None
        self.portal.kill()
        self.portal.wait()

    def start_agent(self) -> None:
        """Start the agent and wait until the portal has heard of it."""
        before = Node.objects.get(pk=self.node.pk).last_seen_at
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
        self.agent = subprocess.Popen(
            [sys.executable, "-c", RUN, str(self.data)], env=environment, stdout=self.log, stderr=self.log
        )
        eventually(lambda: Node.objects.get(pk=self.node.pk).last_seen_at not in (None, before), "the agent's greeting")

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def settle(self, job: Job, *states: str) -> Job:
        """Wait for the agent; the scheduling loop runs here."""

        def there() -> bool:
            if fresh(job).state == "pending":
                cycle()
            return fresh(job).state in states

        eventually(there, f"job {job.pk} to be {states}")
        return fresh(job)

    def close(self) -> None:
        """End what still runs, then the processes, which would otherwise work on the database of later tests."""
        try:
            ids = list(Job.objects.filter(state__in=sorted(JOB_ACTIVE)).values_list("pk", flat=True))
            jobs.cancel_many(actor=SYSTEM, job_ids=ids)
            eventually(lambda: not Job.objects.filter(state__in=sorted(JOB_ACTIVE)).exists(), "all jobs to end")
        finally:
            self._end()

    def _end(self) -> None:
        for process in (self.agent, self.portal):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.log.close()
        self._store(self._kept)
        shutil.rmtree(self.folder, ignore_errors=True)
