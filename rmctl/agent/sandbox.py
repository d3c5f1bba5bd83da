"""How a task is shut in on this node: bubblewrap, another user, or nothing; found out by trying.

With bubblewrap a task sees a read-only system made of a few named folders, its own /proc, /dev and /tmp, its own
processes, and of all data only its own work folder. The agent's folder, other tasks and the portal are not
there at all. As root the task runs as `nobody` without capabilities; otherwise as the agent's user.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rmctl.agent import environment
from rmctl.agent.errors import Refused
from rmctl.agent.journal import TaskFolder
from rmctl.agent.launch import Launch, run
from rmctl.agent.protocol import Assignment, Isolation

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


@dataclass(frozen=True)
class Sandbox:
    """The way of this node. `filesystem` is what may be claimed: `bubblewrap`, `user` or `none`."""

    filesystem: str
    bubblewrap: str = ""
    # The program that gives up the agent's user: chroot (coreutils) or setpriv (util-linux).
    switch: str = ""
    masked: tuple[str, ...] = ()
    fixed: tuple[str, ...] = field(default=(), repr=False)

    def owner(self, placement: int) -> int | None:
        """User id that the task runs as, or None for the agent's own."""
        if not self.switch:
            return None
        return NOBODY if self.bubblewrap else FIRST_TASK_USER + placement % TASK_USERS

    @property
    def folder_modes(self) -> tuple[int, int]:
        """Permissions of a task's folder and of the folders in it that the task writes.

        Where users separate the tasks, they pass through the outer one; where bubblewrap does, its own process
        has given up the right to enter other users' folders before it changes into the inner one.
        """
        return (0o711, 0o700) if self.switch and not self.bubblewrap else (0o700, 0o711)

    def launch(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        groups: list[str],
        isolation: Isolation,
        datasets: Mapping[str, str] = NO_DATASETS,
    ) -> Launch:
        """How to start the task's own process. Raises `Refused` for what no process can be given."""
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
        return Launch([*argv, *self._as_user(assignment.placement), *inner], safe)

    def _as_user(self, placement: int) -> list[str]:
        owner = self.owner(placement)
        if owner is None:
            return []
        if os.path.basename(self.switch) == "chroot":
            # To the root that is there already: it starts in two thirds of setpriv's time.
            return [self.switch, f"--userspec=+{owner}:+{owner}", "--groups=", "--skip-chdir", "/"]
        plain = [self.switch, f"--reuid={owner}", f"--regid={owner}", "--clear-groups"]
        return plain if self.bubblewrap else [*plain, "--no-new-privs"]

    def _in_bubblewrap(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        groups: list[str],
        isolation: Isolation,
        command: list[str],
        datasets: Mapping[str, str],
    ) -> Launch:
        python_path = "" if environment.package_is_installed() else "/task/lib"
        view = environment.View.inside(python_path, datasets)
        safe, loader = environment.split(environment.build(assignment, view))
        # First of all, so that an interpreter or a package below the system's /tmp is mounted into the task's.
        arguments = ["--bind", folder.temporary, "/tmp", *self.fixed]
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
        return Launch([*argv, *self._as_user(assignment.placement), *inner], {"PATH": HELPER_PATH}, data)


def _command(assignment: Assignment) -> list[str]:
    command = list(assignment.command)
    if not command or any("\0" in argument for argument in command):
        raise Refused("command: it is empty or contains a NUL character")
    if command[0] == "bash" and not shutil.which("bash", path=HELPER_PATH):
        command[0] = "sh"
    if "=" in command[0]:
        raise Refused(f"command: {command[0]!r} reads like a variable; put variables into env")
    return command


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


def _fixed_arguments(masked: tuple[str, ...], as_root: bool, drop_user: bool) -> list[str]:
    """The part of bubblewrap's arguments that is the same for every task."""
    arguments = ["--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    if as_root:
        arguments += ["--cap-drop", "ALL"]
        if drop_user:
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"):
                arguments += ["--cap-add", capability]
    else:
        arguments += ["--unshare-user"]
    shown = list(SYSTEM_FOLDERS)
    interpreter = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    for folder in (sys.prefix, sys.base_prefix, interpreter):
        if not any(folder == known or folder.startswith(known + "/") for known in shown):
            shown.append(folder)
    for folder in shown:
        if os.path.isdir(folder):
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
    if as_root and not drop_user:
        # User 0 without capabilities still owns these files.
        arguments += ["--ro-bind", "/proc/sys", "/proc/sys"]
        for secret in ("/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/gshadow-"):
            if os.path.exists(secret):
                arguments += ["--ro-bind", "/dev/null", secret]
    if not environment.package_is_installed():
        arguments += ["--perms", "0755", "--dir", "/task/lib"]
        arguments += ["--ro-bind", environment.package_folder(), "/task/lib/rmctl"]
    return arguments


def probe(data: str) -> Sandbox:
    """The strongest way that really runs a task here: interpreter found, rmctl importable, folder writable."""
    as_root = os.geteuid() == 0
    bubblewrap = shutil.which("bwrap", path=HELPER_PATH) or ""
    chroot, setpriv = (
        (shutil.which(name, path=HELPER_PATH) or "") if as_root else "" for name in ("chroot", "setpriv")
    )
    portal_data = os.environ.get("RMPORTAL_DATA", "")
    masked = tuple(os.path.abspath(folder) for folder in (data, portal_data) if folder)
    candidates = []
    if bubblewrap:
        for helper in dict.fromkeys((chroot, setpriv, "")):
            fixed = tuple(_fixed_arguments(masked, as_root, bool(helper)))
            candidates.append(Sandbox("bubblewrap", bubblewrap, helper, masked, fixed))
    if setpriv:
        candidates.append(Sandbox("user", switch=setpriv))
    for candidate in candidates:
        if _works(candidate, data):
            return candidate
    return Sandbox("none")


def _works(sandbox: Sandbox, data: str) -> bool:
    script = (
        "import os, sys, rmctl; assert sys.prefix == sys.argv[1], sys.prefix; "
        'open(os.environ["RM_RESULT"], "w").write(open(os.environ["RM_INPUTS"]).read())'
    )
    assignment = Assignment(
        placement=0, token=0, job=0, attempt=0, name="probe", tenant="",
        command=["python", "-c", script, sys.prefix],
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="probe-", dir=data) as root:
        os.chmod(root, 0o711)
        folder = TaskFolder(root, 0, 0)
        try:
            folder.create(assignment, sandbox.folder_modes, sandbox.owner(0))
            status = run(sandbox.launch(folder, assignment, [], Isolation()), folder.log, PROBE_SECONDS)
            with open(folder.result, encoding="utf-8") as file:
                return status == 0 and file.read() == "{}"
        except OSError:
            return False
