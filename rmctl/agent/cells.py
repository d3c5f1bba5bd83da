"""The process that makes cells: forked off inside bubblewrap's view of the system, one for each task.

Run by `rmctl.agent.spawner` as `python cells.py rmportal-task DATA`, as root, in a sandbox that bubblewrap has built
once: a read-only system, /dev, /proc, the agent's task folders at /tasks and the node's datasets at /datasets. For each
request on descriptor 4 it forks a watcher, which outlives this process and the agent and writes the exit status. The
watcher forks the first process of the task's own namespaces, which adds what is the task's own, takes /tasks and
/datasets away, and becomes nobody.
So a task costs no reading of the host's mounts and one program start, its own.

Only the standard library, and little of it: its memory is copied for every task, and none of it may hold more than
what one request brought.
"""

import array
import ctypes
import errno
import gc
import marshal
import os
import resource
import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Task = dict[str, Any]

CONTROL = 4
# Seconds between two collections of ended watchers.
COLLECT_SECONDS = 2.0
SETUP_STATUS = 125
NOT_EXECUTABLE_STATUS, NOT_FOUND_STATUS = 126, 127
MAX_DESCRIPTORS = 16
NOBODY = 65534

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError, naming what was tried, when a call of the C library failed."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def read_only(target: str) -> None:
    """Make a bind mount read-only; its other restrictions stay. Raises OSError."""
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def furnish(task: "Task") -> None:
    """Add to this mount namespace what is the task's own. Raises OSError."""
    folder = "/tasks/" + task["folder"]
    kept = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in task["below_tmp"]]
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount(folder + "/work", "/task/work", None, MS_BIND)
    mount(folder + "/out", "/task/out", None, MS_BIND)
    mount(folder + "/tmp", "/tmp", None, MS_BIND)
    for path, descriptor in kept:
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC)
    mount(folder + "/inputs.json", "/task/inputs.json", None, MS_BIND)
    read_only("/task/inputs.json")
    if task["datasets"]:
        show(task["datasets"])
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    size = f"mode=1777,size={task['memory_bytes']}"
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, size)


def show(datasets: list[str]) -> None:
    """Put the datasets, which are read-only already, where the task finds them. Raises OSError."""
    mount("tmpfs", "/task/data", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for name in datasets:
        source, target = f"/datasets/{name}", f"/task/data/{name}"
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(source, target, None, MS_BIND | MS_REC)
    read_only("/task/data")


def find(program: str, folders: str) -> str:
    """The path of a program, as execvp finds it. Raises OSError."""
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in [""] if "/" in program else [(folder or ".") + "/" for folder in folders.split(":")]:
        if os.access(folder + program, os.X_OK) and not os.path.isdir(folder + program):
            return folder + program
        if os.access(folder + program, os.F_OK):
            failure = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    raise failure


def start(task: "Task") -> int:
    """Start the task's own process; returns its pid. Raises OSError."""
    command, environment = task["command"], task["environment"]
    # Python ignores these two; a task must find them as every program does.
    ignored = (signal.SIGPIPE, signal.SIGXFSZ)
    program = find(command[0], environment["PATH"])
    try:
        return os.posix_spawn(program, command, environment, setsigdef=ignored)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # As execvp does with a file that does not say what runs it.
        return os.posix_spawn("/bin/sh", ["/bin/sh", program, *command[1:]], environment, setsigdef=ignored)


def become_nobody(task: "Task", log: int) -> None:
    """Take what the task's own process inherits: its output, its limits, and no rights at all. Raises OSError."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name, value in task["limits"]:
        resource.setrlimit(name, (value, value))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # It was so already, but a change of user may undo it.
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    os.chdir("/task/work")
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def live(task: "Task", log: int, groups: list[int]) -> None:
    """Be the first process of the task's namespaces: its init. Does not return.

    It still has what the process has seen that it was forked off, so it stays unreadable for the task's processes,
    though they are of the same user; and no signal from inside of its namespace reaches an init.
    """
    try:
        for group in groups:
            os.write(group, b"0")
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
        furnish(task)
        for folder in (b"/tasks", b"/datasets"):
            check(libc.umount2(folder, MNT_DETACH), f"umount {folder!r}")
    except BaseException as error:
        try:
            with open(f"/tasks/{task['folder']}/refused", "w", encoding="utf-8", errors="replace") as file:
                file.write(str(error))
        finally:
            os._exit(SETUP_STATUS)
    try:
        become_nobody(task, log)
        main = start(task)
    except OSError as error:
        os.write(2, f"{task['command'][0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(NOT_FOUND_STATUS if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE_STATUS)
    while True:
        pid, status = os.wait()
        if pid == main:
            os._exit(exit_status(status))


def watch(task: "Task", log: int, groups: list[int]) -> None:
    """Be the process that the agent watches: start the task's first process, and write how it ended. Does not return.

    The exit status is written over what is left of an older one, which is no longer than a byte (rmctl.agent.journal).
    """
    try:
        os.setsid()
        folder = "/tasks/" + task["folder"]
        exit_file = os.open(folder + "/exit", os.O_WRONLY | os.O_CREAT, 0o600)
        process_file = os.open(folder + "/process", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(process_file, b"%d\n" % os.getpid())
        check(libc.unshare(CLONE_NEWPID), "unshare")
        first = os.fork()
        if not first:
            live(task, log, groups)
        for descriptor in (log, *groups):
            os.close(descriptor)
        status = exit_status(os.waitpid(first, 0)[1])
        os.write(exit_file, b"%d\n" % status)
        os._exit(status)
    except BaseException as error:
        print(f"task {task['folder']}: {error!r}", file=sys.stderr, flush=True)
        os._exit(SETUP_STATUS)


def exit_status(status: int) -> int:
    """As a shell tells it: 128 and the number of the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def receive(control: socket.socket) -> "tuple[Task, list[int]] | None":
    """The next request with its descriptors, the log and the groups to enter; None when the agent has gone."""
    received = array.array("i")
    data, ancillary, _, _ = control.recvmsg(
        8, socket.CMSG_LEN(MAX_DESCRIPTORS * received.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for _, _, found in ancillary:
        received.frombytes(found[: len(found) - len(found) % received.itemsize])
    if len(data) < 8:
        return None
    missing, parts = int.from_bytes(data, "little"), []
    while missing:
        part = control.recv(missing)
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return marshal.loads(b"".join(parts)), list(received)


def collect() -> None:
    """Let go of watchers that have ended; the agent sees each one's end by itself."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def serve(control: socket.socket) -> None:
    """Answer requests until the agent closes its end; the cells live on."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        if not poll.poll(COLLECT_SECONDS * 1000):
            collect()
            continue
        request = receive(control)
        if request is None:
            return
        task, (log, *groups) = request
        pid = os.fork()
        if not pid:
            control.close()
            watch(task, log, groups)
        descriptor = os.pidfd_open(pid)
        socket.send_fds(control, [pid.to_bytes(8, "little")], [descriptor])
        for number in (descriptor, log, *groups):
            os.close(number)
        del task, request
        collect()


def main() -> None:
    """Get ready and say so, then serve."""
    control = socket.socket(fileno=CONTROL)
    os.set_inheritable(CONTROL, False)
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Nobody may look into a process with the variables of several tasks.
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    gc.collect()
    gc.freeze()
    gc.disable()
    control.send(b"ready")
    serve(control)


if __name__ == "__main__":
    main()
