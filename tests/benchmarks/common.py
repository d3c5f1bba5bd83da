"""What the benchmarks share: a client of the portal under test, its memory, and how results are printed."""

import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

TERMINAL = ("succeeded", "failed", "cancelled")


def setup_django() -> None:
    """Make the portal's own database usable from here (to make a token, to read exact times)."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")
    django.setup()


def make_token() -> str:
    """An API token of the first operator."""
    from django.utils import timezone

    from apps.tenants import commands
    from apps.tenants.actors import actor_for
    from apps.tenants.models import Membership

    user = Membership.objects.filter(role="operator").order_by("id")[0].user
    _, token = commands.create_token(
        actor=actor_for(user), name="benchmark", scopes=["admin"], expires_at=timezone.now() + timedelta(hours=2)
    )
    return token


class Portal:
    """A client of the running portal."""

    def __init__(self, tenant: str = "main") -> None:
        setup_django()
        self.tenant = tenant
        self.client = httpx.Client(
            base_url=os.environ["RMCTL_URL"] + "/api/v1/",
            headers={"Authorization": f"Bearer {make_token()}"},
            timeout=60,
        )

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One call; raises with the portal's own words when it refuses."""
        answer = self.client.request(method, path, **options)
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def push(self, definition: dict[str, Any]) -> int:
        """Push a definition; returns the workflow's id."""
        return int(self.call("POST", "workflows", json={"tenant": self.tenant, "definition": definition})["id"])

    def run(self, workflow: int, timeout: float = 300.0) -> dict[str, Any]:
        """Trigger a run and wait for its end; returns the run with its tasks' times."""
        triggered = time.time()
        return {**self.ended(self.trigger(workflow), timeout), "triggered": triggered}

    def trigger(self, workflow: int) -> int:
        """Trigger a run; returns its id."""
        return int(self.call("POST", f"workflows/{workflow}/trigger", json={"params": {}})["id"])

    def ended(self, run_id: int, timeout: float) -> dict[str, Any]:
        """Wait for the good end of a run by looking at its row; returns it with its tasks' times."""
        from apps.workflows.models import Run, Task

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            state = Run.objects.values_list("state", flat=True).get(pk=run_id)
            if state in TERMINAL:
                break
            time.sleep(0.02)
        else:
            raise RuntimeError(f"run {run_id} did not end within {timeout} s")
        tasks = list(
            Task.objects.filter(run_id=run_id, job__isnull=False)
            .order_by("pk")
            .values("name", "state", "job__submitted_at", "job__started_at", "job__ended_at")
        )
        wrong = [task["name"] for task in tasks if task["state"] != "succeeded"]
        if state != "succeeded" or wrong:
            raise RuntimeError(f"run {run_id} is {state}; not succeeded: {wrong[:5]}")
        return {"id": run_id, "tasks": tasks}

    def wait_for_node(self, timeout: float = 60.0) -> None:
        """Until a node is ready."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if any(node["state"] == "ready" for node in self.call("GET", "nodes")["results"]):
                return
            time.sleep(0.1)
        raise RuntimeError("no node became ready")


def seconds(value: datetime) -> float:
    """A time as Unix seconds."""
    return value.timestamp()


def spread(values: list[float], unit: float = 1000.0) -> dict[str, float]:
    """Median, 95th percentile and maximum, in milliseconds by default."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered) * unit, 1),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] * unit, 1),
        "max": round(ordered[-1] * unit, 1),
    }


def processes() -> dict[str, psutil.Process]:
    """The portal's processes by name, from the launcher's file."""
    path = os.environ.get("RMPORTAL_PIDS_FILE", "")
    if not path or not Path(path).is_file():
        return {}
    found = {}
    for name, pid in json.loads(Path(path).read_text()).items():
        try:
            found[name] = psutil.Process(int(pid))
        except psutil.Error:
            continue
    return found


def memory() -> dict[str, float]:
    """Proportional set size in MiB of each process with its children, and the total."""
    sizes: dict[str, float] = {}
    seen: set[int] = set()
    for name, process in processes().items():
        total = 0
        for member in [process, *process.children(recursive=True)]:
            if member.pid in seen:
                continue
            seen.add(member.pid)
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        sizes[name] = round(total / 2**20, 1)
    sizes["total"] = round(sum(sizes.values()), 1)
    return sizes


def cpu_seconds() -> float:
    """User and system seconds that the portal's processes have used so far."""
    total = 0.0
    for process in processes().values():
        for member in [process, *process.children(recursive=True)]:
            try:
                times = member.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
    return total


class Peak(threading.Thread):
    """Samples the total memory until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest: dict[str, float] = {"total": 0.0}
        self._stop_request = threading.Event()

    def run(self) -> None:
        while not self._stop_request.wait(1.0):
            sample = memory()
            if sample["total"] > self.highest["total"]:
                self.highest = sample

    def stop(self) -> dict[str, float]:
        """End sampling; the sample with the highest total."""
        self._stop_request.set()
        self.join()
        return self.highest


@contextmanager
def peak_memory(result: dict[str, Any]) -> Iterator[None]:
    """Store the peak of what happens inside as `memory_peak_mib`."""
    peak = Peak()
    peak.start()
    try:
        yield
    finally:
        result["memory_peak_mib"] = peak.stop()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def finish(result: dict[str, Any]) -> None:
    """Print the one JSON of a benchmark."""
    print(json.dumps(result, indent=2))
