"""How a task is shut in on this node: bubblewrap, another user, or nothing; found out by trying.

With bubblewrap a task sees a read-only system made of a few named folders, its own /proc, /dev and /tmp, its own
processes, and of all data only its own work folder. The agent's folder, other tasks and the portal are not
there at all. As root the task runs as `nobody` without capabilities; otherwise as the agent's user.
"""

import errno
import functools
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rmctl.agent import cells, environment, launch
from rmctl.agent.errors import Refused
from rmctl.agent.journal import TaskFolder
from rmctl.agent.launch import Launch, Started
from rmctl.agent.protocol import Assignment, Isolation
from rmctl.agent.spawner import Spawner

NOBODY = 65534
NO_DATASETS: Mapping[str, str] = MappingProxyType({})
# Without bubblewrap each task of a root agent gets a user id of its own, so that neighbours cannot read it.
FIRST_TASK_USER = 1_900_000_000
TASK_USERS = 100_000_000
SYSTEM_FOLDERS = ("/usr", "/etc", "/opt", "/nix/store", "/sys/devices/system", "/run/systemd/resolve")
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
PROBE_SECONDS = 20.0
HELPER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The task's own shell. It stays outside the task's groups and writes the exit status, so that this survives the
# agent's death and the task's limits. The inner shell enters the groups before it executes anything; writing 0
# means "me". `trap :` keeps the outer shell alive through SIGTERM; traps are reset in the inner one. The exit status is
# written over what is left of an older one, which is no longer than a byte (rmctl.agent.journal).
SHELL = """\
trap : TERM INT HUP QUIT
(
  folder=$1 fsize=$2 space=$3 processes=$4 work=$5
  shift 5
  while [ "$1" != -- ]; do
    echo 0 > "$1/cgroup.procs" || { echo "could not enter $1" > "$folder/refused"; exit 125; }
    shift
  done
  shift
  ulimit -c 0
  [ "$fsize" = 0 ] || ulimit -f "$fsize"
  [ "$space" = 0 ] || ulimit -v "$space"
  [ "$processes" = 0 ] || ulimit -u "$processes" 2>/dev/null || ulimit -p "$processes"
  [ -z "$work" ] || cd "$work"
  exec "$@"
)
status=$?
echo $status 1<> "$1/exit"
exit $status
"""

# Inside a user namespace the count of processes starts from nothing, so the limit is set there.
PROCESS_LIMIT = 'ulimit -u "$0" 2>/dev/null || ulimit -p "$0"; exec "$@"'

# The limit on what a process may map is for the task alone: what starts it may map more already.
ADDRESS_SPACE = 'ulimit -v "$0"; exec "$@"'

# What the kernel takes for one argument or variable (MAX_ARG_STRLEN), and of the stack's limit for all (execve(2)).
ARGUMENT_BYTES = 32 * resource.getpagesize()
STACK_SHARE = 4


@dataclass(frozen=True)
class Sandbox:
    """The way of this node. `filesystem` is what may be claimed: `bubblewrap`, `user` or `none`."""

    filesystem: str
    bubblewrap: str = ""
    # The program that gives up the agent's user (setpriv), where bubblewrap is missing.
    switch: str = ""
    fixed: tuple[str, ...] = field(default=(), repr=False)
    # For tasks without and with GPUs; only where the agent is root.
    spawners: tuple[Spawner, Spawner] | None = field(default=None, repr=False)

    def owner(self, placement: int) -> int | None:
        """User id that the task runs as, or None for the agent's own."""
        if self.spawners:
            return NOBODY
        return FIRST_TASK_USER + placement % TASK_USERS if self.switch else None

    @property
    def folder_modes(self) -> tuple[int, int]:
        """Permissions of a task's folder and of the folders in it that the task writes.

        Where users separate the tasks, they pass through the outer one; where bubblewrap does, its own process
        has given up the right to enter other users' folders before it changes into the inner one.
        """
        return (0o711, 0o700) if self.switch else (0o700, 0o711)

    @property
    def wrappers(self) -> int:
        """How many processes stand between the one that is started and the task's own."""
        return 1 if self.spawners else 2 if self.bubblewrap else 0

    def start(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        groups: list[str],
        isolation: Isolation,
        datasets: Mapping[str, str] = NO_DATASETS,
    ) -> Started:
        """Start the task, which sees the datasets (name → path; of those that `probe` was told).

        Raises OSError, and `Refused` for what no process can be given.
        """
        if self.spawners:
            spawner = self.spawners[bool(assignment.gpus)]
            return spawner.start(self._request(folder, assignment, isolation, datasets), folder.log, groups)
        return launch.start(self._launch(folder, assignment, groups, isolation, datasets), folder.log)

    def close(self) -> None:
        """End what starts tasks; those that run go on."""
        for spawner in self.spawners or ():
            spawner.close()

    def _request(
        self, folder: TaskFolder, assignment: Assignment, isolation: Isolation, datasets: Mapping[str, str]
    ) -> dict[str, Any]:
        command, variables = _command(assignment), environment.build(assignment, _view(datasets))
        _check_size(command, variables)
        if isolation.memory == "address space":
            command = ["/bin/sh", "-c", ADDRESS_SPACE, str(assignment.memory_bytes // 1024), *command]
        return {
            "folder": os.path.basename(folder.path),
            "command": command,
            "environment": variables,
            "memory_bytes": assignment.memory_bytes,
            "limits": [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, max(512, assignment.storage_bytes))],
            "datasets": list(datasets),
            "below_tmp": [path for path in _shown() if path.startswith("/tmp/")],
        }

    def _launch(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        groups: list[str],
        isolation: Isolation,
        datasets: Mapping[str, str],
    ) -> Launch:
        command = _command(assignment)
        if self.bubblewrap:
            return self._in_bubblewrap(folder, assignment, groups, isolation, command, datasets)
        python_path = (
            "" if environment.package_is_installed() else os.path.dirname(environment.package_folder())
        )
        view = environment.View(folder.work, folder.temporary, folder.out, folder.inputs, python_path, datasets)
        safe, loader = environment.split(environment.build(assignment, view))
        inner = ["/usr/bin/env", *loader, *command] if loader else command
        processes = 0
        if isolation.pids.startswith("rlimit"):
            # The kernel counts all processes of the user; a user of its own starts from nothing.
            processes = assignment.pids + (0 if self.switch else _own_processes())
        argv = _shell(folder, assignment, groups, isolation, processes, folder.work)
        owner = self.owner(assignment.placement)
        if owner is not None:
            argv += [self.switch, f"--reuid={owner}", f"--regid={owner}", "--clear-groups", "--no-new-privs"]
        return Launch([*argv, *inner], safe)

    def _in_bubblewrap(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        groups: list[str],
        isolation: Isolation,
        command: list[str],
        datasets: Mapping[str, str],
    ) -> Launch:
        view = _view(datasets)
        safe, loader = environment.split(environment.build(assignment, view))
        # First of all, so that an interpreter or a package below the system's /tmp is mounted into the task's.
        arguments = ["--bind", folder.temporary, "/tmp", *self.fixed]
        arguments += ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        arguments += ["--size", str(assignment.memory_bytes), "--tmpfs", "/dev/shm"]
        if assignment.gpus:
            arguments += _gpu_devices()
        arguments += ["--chmod", "1777", "/dev/shm"]
        arguments += ["--bind", folder.work, "/task/work", "--bind", folder.out, "/task/out"]
        arguments += ["--ro-bind", folder.inputs, "/task/inputs.json"]
        if datasets:
            arguments += ["--perms", "0755", "--dir", "/task/data"]
        for name, path in datasets.items():
            arguments += ["--ro-bind", path, view.datasets[name]]
        arguments += ["--remount-ro", "/", "--chdir", "/task/work"]
        for name, value in safe.items():
            arguments += ["--setenv", name, value]
        inner = ["/usr/bin/env", *loader, *command] if loader else command
        if isolation.pids == "rlimit (namespace)":
            inner = ["/bin/sh", "-c", PROCESS_LIMIT, str(assignment.pids), *inner]
        argv = [*_shell(folder, assignment, groups, isolation, 0, ""), self.bubblewrap, "--args", "3", "--"]
        data = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
        return Launch([*argv, *inner], {"PATH": HELPER_PATH}, data)


def _view(datasets: Mapping[str, str]) -> environment.View:
    """Where a task in bubblewrap sees its folders."""
    return environment.View.inside("" if environment.package_is_installed() else "/task/lib", datasets)


def _command(assignment: Assignment) -> list[str]:
    command = list(assignment.command)
    if not command or any("\0" in argument for argument in command):
        raise Refused("command: it is empty or contains a NUL character")
    if command[0] == "bash" and not shutil.which("bash", path=HELPER_PATH):
        command[0] = "sh"
    if "=" in command[0]:
        raise Refused(f"command: {command[0]!r} reads like a variable; put variables into env")
    return command


def _check_size(command: list[str], variables: dict[str, str]) -> None:
    """Raise OSError (E2BIG) for what no process could be given, as execve would."""
    sizes = [len(os.fsencode(argument)) + 1 for argument in command]
    sizes += [len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in variables.items()]
    pointer = 8
    if max(sizes) > ARGUMENT_BYTES or sum(sizes) + pointer * len(sizes) > _room_for_arguments():
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))


def _room_for_arguments() -> int:
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    room = 6 * 2**20  # However large the stack: three quarters of 8 MiB.
    return room if stack == resource.RLIM_INFINITY else min(room, stack // STACK_SHARE)


def _shell(
    folder: TaskFolder,
    assignment: Assignment,
    groups: list[str],
    isolation: Isolation,
    processes: int,
    work: str,
) -> list[str]:
    blocks = max(1, assignment.storage_bytes // 512)
    space = assignment.memory_bytes // 1024 if isolation.memory == "address space" else 0
    numbers = [str(blocks), str(space), str(processes)]
    return ["/bin/sh", "-c", SHELL, "rmportal-task", folder.path, *numbers, work, *groups, "--"]


def _own_processes() -> int:
    user = os.getuid()
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                count += entry.stat().st_uid == user
            except FileNotFoundError:
                continue
    return count


def _gpu_devices() -> list[str]:
    arguments: list[str] = []
    for name in sorted(os.listdir("/dev")):
        if name.startswith("nvidia"):
            arguments += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
    for path in ("/sys/devices", "/sys/class", "/sys/bus/pci", "/sys/module"):
        arguments += ["--ro-bind-try", path, path]
    return arguments


def _parents(path: str) -> list[str]:
    """Arguments that make the folders above a mount point readable: bubblewrap makes them for root only."""
    arguments: list[str] = []
    parts = path.strip("/").split("/")[:-1]
    for count in range(1, len(parts) + 1):
        arguments += ["--perms", "0755", "--dir", "/" + "/".join(parts[:count])]
    return arguments


@functools.cache
def _shown() -> tuple[str, ...]:
    """Folders of the system that a task sees, the interpreter's among them."""
    shown = list(SYSTEM_FOLDERS)
    interpreter = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    for folder in (sys.prefix, sys.base_prefix, interpreter):
        if not any(folder == known or folder.startswith(known + "/") for known in shown):
            shown.append(folder)
    return tuple(folder for folder in shown if os.path.isdir(folder))


def _fixed_arguments(masked: tuple[str, ...]) -> list[str]:
    """The part of bubblewrap's arguments that is the same for every task."""
    arguments: list[str] = []
    shown = _shown()
    for folder in shown:
        arguments += [*_parents(folder), "--ro-bind", folder, folder]
    for link in SYSTEM_LINKS:
        if os.path.islink(link):
            arguments += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            arguments += ["--ro-bind", link, link]
    for folder in masked:
        if any(folder.startswith(known + "/") for known in shown):
            arguments += ["--perms", "0755", "--tmpfs", folder]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", "/task"]
    if not environment.package_is_installed():
        arguments += ["--perms", "0755", "--dir", "/task/lib"]
        arguments += ["--ro-bind", environment.package_folder(), "/task/lib/rmctl"]
    return arguments


def _spawner(
    bubblewrap: str, fixed: tuple[str, ...], data: str, devices: list[str], datasets: Mapping[str, str]
) -> Spawner:
    """What starts tasks in cells of one sandbox, which has the mount points and the datasets that a cell needs."""
    arguments = ["--cap-drop", "ALL"]
    for capability in ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"):
        arguments += ["--cap-add", capability]
    arguments += [*fixed, *devices]
    for folder in ("/tmp", "/dev/shm", "/task/work", "/task/out", "/task/data"):
        arguments += ["--perms", "0755", "--dir", folder]
    arguments += ["--tmpfs", "/datasets"]
    for name, path in datasets.items():
        arguments += ["--ro-bind-try", path, f"/datasets/{name}"]
    arguments += ["--ro-bind", "/dev/null", "/task/inputs.json", "--bind", f"{data}/tasks", "/tasks"]
    package = environment.package_folder() if environment.package_is_installed() else "/task/lib/rmctl"
    program = f"{package}/agent/{os.path.basename(cells.__file__)}"
    return Spawner(bubblewrap, [*arguments, "--remount-ro", "/"], program, data)


def probe(data: str, datasets: Mapping[str, str] = NO_DATASETS) -> Sandbox:
    """The strongest way that really runs a task here: interpreter found, rmctl importable, folder writable.

    `datasets` (name → path) are those that tasks may ever see. To be asked when the agent is in the group where it
    stays; to be closed.
    """
    os.makedirs(f"{data}/tasks", mode=0o711, exist_ok=True)
    for candidate in _candidates(data, datasets):
        if _works(candidate, data):
            return candidate
        candidate.close()
    return Sandbox("none")


def _candidates(data: str, datasets: Mapping[str, str]) -> Iterator[Sandbox]:
    bubblewrap = shutil.which("bwrap", path=HELPER_PATH)
    if bubblewrap:
        masked = (data, os.environ.get("RMPORTAL_DATA", ""))
        fixed = tuple(_fixed_arguments(tuple(os.path.abspath(folder) for folder in masked if folder)))
        if os.geteuid() == 0:
            plain, with_gpus = (
                _spawner(bubblewrap, fixed, data, devices, datasets) for devices in ([], _gpu_devices())
            )
            yield Sandbox("bubblewrap", spawners=(plain, with_gpus))
        else:
            yield Sandbox("bubblewrap", bubblewrap, fixed=fixed)
    setpriv = shutil.which("setpriv", path=HELPER_PATH) if os.geteuid() == 0 else None
    if setpriv:
        yield Sandbox("user", switch=setpriv)


def _works(sandbox: Sandbox, data: str) -> bool:
    script = (
        "import os, sys, rmctl; assert sys.prefix == sys.argv[1], sys.prefix; "
        'open(os.environ["RM_RESULT"], "w").write(open(os.environ["RM_INPUTS"]).read())'
    )
    assignment = Assignment(
        placement=0, token=0, job=0, attempt=0, name="probe", tenant="",
        command=["python", "-c", script, sys.prefix],
    )  # fmt: skip
    folder = TaskFolder(f"{data}/tasks", 0, 0)
    folder.path = f"{data}/tasks/probe"
    folder.remove()
    try:
        folder.create(assignment, sandbox.folder_modes, sandbox.owner(0))
        launch.wait(sandbox.start(folder, assignment, [], Isolation()), PROBE_SECONDS)
        with open(folder.result, encoding="utf-8") as file:
            return file.read() == "{}" and (folder.exit_status() or (1,))[0] == 0
    except OSError:
        return False
    finally:
        folder.remove()
