"""Who runs PostgreSQL: it refuses root, so a portal started by root gives it another identity.

That account is never `nobody` where there is a choice, because tasks run as `nobody` and must not own the database.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .console import Refusal
from .processes import libc

ACCOUNTS = ("postgres", "daemon", "nobody")
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Identity:
    """How a server's process differs from its launcher: a user, a capability it keeps, or a wrapping command."""

    uid: int
    gid: int
    name: str
    capability: int | None = None
    wrapper: tuple[str, ...] = ()

    def assume(self) -> None:
        """In a child before exec: become this user; raises OSError where the kernel forbids it."""
        if self.wrapper or self.uid == os.geteuid():
            return
        if self.capability is not None:
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if self.capability is not None:
            _keep_capability(self.capability)

    def own(self, path: Path) -> None:
        """Give a folder with everything in it to this user, when it belongs to another one (only root can)."""
        # In a user namespace our own files merely look as if they were another's.
        owner = os.geteuid() if self.wrapper else self.uid
        if os.geteuid() == 0 and path.stat().st_uid != owner:
            for folder, folders, files in os.walk(path):
                for name in (".", *folders, *files):
                    os.chown(os.path.join(folder, name), owner, -1, follow_symlinks=False)


def _keep_capability(number: int) -> None:
    """Hold exactly this capability, and let it outlive exec (capset(2), "ambient" in capabilities(7))."""
    mask = 1 << number
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Two sets (low and high 32 bits) of effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if libc.capset(header, sets) or libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0):
        raise OSError(ctypes.get_errno(), f"capability {number} cannot be kept")


def own_identity() -> Identity:
    """The launcher's own user."""
    return Identity(os.geteuid(), os.getegid(), str(os.geteuid()))


def unprivileged(binary: Path, folder: Path) -> Identity:
    """An identity that is not root, may run `binary` and reach `folder`. Raises Refusal when there is none.

    Tried in this order: an ordinary account; that account with the one capability to pass closed folders (a
    project in /root); a user namespace in which root has another number.
    """
    if os.geteuid() != 0:
        return own_identity()
    account = next((found for name in ACCOUNTS if (found := _account(name))), None)
    candidates = []
    if account is not None:
        candidates = [
            Identity(account.pw_uid, account.pw_gid, account.pw_name, capability)
            for capability in (None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)
        ]
    for identity in candidates:
        if _in_child(lambda identity=identity: _reaches(identity, binary, folder)):  # type: ignore[misc]
            return identity
    nobody = _account("nobody")
    unshare = shutil.which("unshare")
    if unshare and nobody is not None:
        numbers = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
        wrapper = (unshare, "--user", *numbers, "--")
        if subprocess.run([*wrapper, str(binary), "--version"], capture_output=True, check=False).returncode == 0:
            return Identity(nobody.pw_uid, nobody.pw_gid, "nobody", wrapper=wrapper)
    who = account.pw_name if account else "an unprivileged account"
    raise Refusal(
        f"PostgreSQL refuses to run as root, and {who} cannot reach {binary} or {folder}.\n"
        "Start ./portal as an ordinary user, or put the project and its data folder where others may pass "
        "(each folder above them needs mode o+x)."
    )


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return found if found.pw_uid != 0 else None


def _reaches(identity: Identity, binary: Path, folder: Path) -> bool:
    identity.assume()
    return os.access(binary, os.X_OK, effective_ids=True) and os.access(folder, os.X_OK, effective_ids=True)


def _in_child(check: Callable[[], bool]) -> bool:
    """Ask `check` in a forked child, since an identity cannot be taken back."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            os._exit(0 if check() else 1)
        except BaseException:
            # Whatever goes wrong in the child is the answer "no".
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
