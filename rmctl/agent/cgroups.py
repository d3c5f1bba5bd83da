"""Control groups, version 1 and 2: what of cpu, memory and pids this node can really limit, and the limits.

The agent makes one parent group below its own, named after its data folder, and in it one group per task. A
task's shell enters its groups before it executes anything of the task, so nothing runs unlimited.
"""

import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CONTROLLERS = ("cpu", "memory", "pids")
# Version 1 counts the cpu time in a hierarchy of its own, which limits nothing.
ACCOUNTING = "cpuacct"
PERIOD_MICROSECONDS = 100_000
AGENT_LEAF = "rmportal-agent"


@dataclass(frozen=True)
class Limits:
    cpu_millicores: int
    cpu_limit_millicores: int
    memory_bytes: int
    pids: int


@dataclass
class Cgroups:
    """The parent groups that were made and tried: controller → (version, folder)."""

    parents: dict[str, tuple[str, str]] = field(default_factory=dict)

    def version(self, controller: str) -> str:
        """`cgroup-v1`, `cgroup-v2`, or `none` when this node cannot limit it."""
        return self.parents[controller][0] if controller in self.parents else "none"

    def folders(self) -> list[str]:
        return list(dict.fromkeys(folder for _, folder in self.parents.values()))

    def create(self, task: str, limits: Limits) -> list[str]:
        """Make the task's groups and write its limits. Raises OSError; `remove` what was made then."""
        for folder in self.folders():
            os.mkdir(f"{folder}/{task}")
        for controller, (version, folder) in self.parents.items():
            for name, value in _settings(controller, version, limits):
                try:
                    _write(f"{folder}/{task}/{name}", value)
                except FileNotFoundError:
                    if name not in OPTIONAL:
                        raise
        return self.task_groups(task)

    def task_groups(self, task: str) -> list[str]:
        return [f"{folder}/{task}" for folder in self.folders()]

    def leftovers(self, keep: Iterable[str]) -> list[list[str]]:
        """Groups of tasks that nobody holds any more (the agent was killed between two steps)."""
        kept = set(keep)
        names = {
            entry.name
            for folder in self.folders()
            for entry in os.scandir(folder)
            if entry.is_dir() and entry.name not in kept
        }
        return [[group for group in self.task_groups(name) if os.path.isdir(group)] for name in sorted(names)]


# Files that a kernel may lack without the limit being lost: swap accounting is optional.
OPTIONAL = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group"})


def _settings(controller: str, version: str, limits: Limits) -> list[tuple[str, str]]:
    shares = max(2, limits.cpu_millicores * 1024 // 1000)
    quota = max(1000, limits.cpu_limit_millicores * PERIOD_MICROSECONDS // 1000)
    memory = str(limits.memory_bytes)
    table = {
        ("cpu", "cgroup-v1"): [("cpu.shares", str(shares)), ("cpu.cfs_quota_us", str(quota))],
        ("cpu", "cgroup-v2"): [
            ("cpu.weight", str(min(10_000, 1 + (shares - 2) * 9_999 // 262_142))),
            ("cpu.max", f"{quota} {PERIOD_MICROSECONDS}"),
        ],
        ("memory", "cgroup-v1"): [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)],
        ("memory", "cgroup-v2"): [
            ("memory.max", memory),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
        ],
        (ACCOUNTING, "cgroup-v1"): [],
        ("pids", "cgroup-v1"): [("pids.max", str(limits.pids))],
        ("pids", "cgroup-v2"): [("pids.max", str(limits.pids))],
    }
    return table[controller, version]


def probe(name: str) -> Cgroups:
    """Make the parent groups and really put a process into a limited child; keep what worked."""
    found = Cgroups()
    limits = Limits(100, 1000, 64 * 1024 * 1024, 16)
    for controller, (version, own) in own_groups().items():
        try:
            folder = _make_parent(own, name, version)
            trial = Cgroups({controller: (version, folder)})
            groups = trial.task_groups("probe")
            try:
                trial.create("probe", limits)
                script = 'echo 0 > "$1/cgroup.procs"'
                subprocess.run(["/bin/sh", "-c", script, "sh", groups[0]], check=True, capture_output=True)
            finally:
                remove(groups)
        except (OSError, subprocess.CalledProcessError):
            continue
        found.parents[controller] = (version, folder)
    return found


def _make_parent(own: str, name: str, version: str) -> str:
    parent = f"{own}/{name}"
    os.makedirs(parent, exist_ok=True)
    if version == "cgroup-v2":
        _delegate(own)
        _delegate(parent)
    return parent


def _delegate(folder: str) -> None:
    """Switch our controllers on for the children of a version 2 group."""
    available = Path(folder, "cgroup.controllers").read_text().split()
    enabled = Path(folder, "cgroup.subtree_control").read_text().split()
    missing = [f"+{name}" for name in CONTROLLERS if name in available and name not in enabled]
    if not missing:
        return
    try:
        _write(f"{folder}/cgroup.subtree_control", " ".join(missing))
    except OSError:
        # A group with processes cannot have limited children: the agent steps aside into a leaf. When others
        # live in the group too, the second try fails as well and the probe reports `none`.
        os.makedirs(f"{folder}/{AGENT_LEAF}", exist_ok=True)
        _write(f"{folder}/{AGENT_LEAF}/cgroup.procs", "0")
        _write(f"{folder}/cgroup.subtree_control", " ".join(missing))


def own_groups(proc: str = "/proc/self") -> dict[str, tuple[str, str]]:
    """Controller → (version, folder) of the group that the agent itself is in."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in Path(proc, "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            mounts[""] = (root, point)
        elif kind == "cgroup":
            for option in options.split(","):
                mounts[option] = (root, point)
    found: dict[str, tuple[str, str]] = {}
    for line in Path(proc, "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for controller in names.split(","):
            if controller in mounts and controller in (*CONTROLLERS, ACCOUNTING, ""):
                version = "cgroup-v1" if controller else "cgroup-v2"
                found[controller] = (version, _below(*mounts[controller], path))
    unified = found.pop("", None)
    if unified:
        folder = unified[1].removesuffix("/" + AGENT_LEAF)
        for controller in _controllers(folder):
            found.setdefault(controller, ("cgroup-v2", folder))
    return found


def _controllers(folder: str) -> list[str]:
    try:
        available = Path(folder, "cgroup.controllers").read_text().split()
    except OSError:
        return []
    return [name for name in CONTROLLERS if name in available]


def _below(root: str, point: str, path: str) -> str:
    # In a container the mount shows only a part of the tree, or the path is that of another namespace.
    relative = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/")) else ""
    folder = point + relative.rstrip("/")
    return folder if os.path.isdir(folder) else point


def processes(groups: Iterable[str]) -> set[int]:
    """Every process in any of the groups."""
    found: set[int] = set()
    for group in groups:
        try:
            with open(f"{group}/cgroup.procs", encoding="ascii") as file:
                found.update(map(int, file.read().split()))
        except OSError:
            continue
    found.discard(0)  # a process that this pid namespace cannot see
    return found


def kill(groups: Iterable[str]) -> None:
    """SIGKILL to everything in the groups."""
    groups = list(groups)
    for group in groups:
        try:
            _write(f"{group}/cgroup.kill", "1")
        except OSError:
            continue
    for pid in processes(groups):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def remove(groups: Iterable[str]) -> list[str]:
    """Remove the groups; returns those that still hold a dying process, for a later try."""
    busy = []
    for group in groups:
        try:
            os.rmdir(group)
        except FileNotFoundError:
            continue
        except OSError:
            busy.append(group)
    return busy


def out_of_memory_kills(groups: Iterable[str]) -> int:
    """How many processes the kernel killed because the task passed its memory limit."""
    return _counter(groups, ("memory.events", "memory.oom_control"), "oom_kill")


def refused_forks(groups: Iterable[str]) -> int:
    """How many times a new process was refused by the pids limit."""
    return _counter(groups, ("pids.events",), "max")


def memory_peak(groups: Iterable[str]) -> int:
    """Most memory the task had, in bytes; 0 where the kernel does not say."""
    for group in groups:
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            try:
                with open(f"{group}/{name}", encoding="ascii") as file:
                    return int(file.read())
            except OSError:
                continue
    return 0


def cpu_seconds(groups: Iterable[str]) -> float:
    """Processor time that the task used; 0 where no group counts it."""
    for group in groups:
        try:
            with open(f"{group}/cpuacct.usage", encoding="ascii") as file:
                return int(file.read()) / 1e9
        except OSError:
            continue
    return _counter(groups, ("cpu.stat",), "usage_usec") / 1e6


def _counter(groups: Iterable[str], names: tuple[str, ...], key: str) -> int:
    for group in groups:
        for name in names:
            try:
                with open(f"{group}/{name}", encoding="ascii") as file:
                    pairs = dict(line.split() for line in file.read().splitlines())
            except OSError:
                continue
            return int(pairs.get(key, "0"))
    return 0


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
