"""The environment of a task: nothing of the agent's own, the RM_ variables, then what the assignment asks for."""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import rmctl
from rmctl.agent.errors import Refused
from rmctl.agent.protocol import Assignment
from rmctl.names import STATE_SOCKET, STATE_VARIABLE

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Variables that change what a program loads or runs before it reaches `main`. A privileged helper (the shell
# that sets the limits, chroot, the container CLI) must never start with a tenant's values of these; glibc
# keeps the same list for set-user-id programs. The task itself gets them from `env`, after privileges are gone.
LOADER = re.compile(
    r"LD_.*|MALLOC_.*|GLIBC_TUNABLES|GCONV_PATH|GETCONF_DIR|HOSTALIASES|LOCALDOMAIN|LOCPATH|NIS_PATH|NLSPATH|"
    r"RESOLV_HOST_CONF|RES_OPTIONS|TZDIR|ENV|BASH_.*|SHELLOPTS|BASHOPTS|IFS|PS4|CDPATH"
)


@dataclass(frozen=True)
class View:
    """Where the task sees its folders: the same as the agent, or other paths inside a sandbox."""

    work: str
    temporary: str
    out: str
    inputs: str
    python_path: str
    # Where it finds the datasets that it reads and that this node holds.
    datasets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def inside(cls, python_path: str, datasets: Iterable[str]) -> "View":
        """The paths in a sandbox or container."""
        found = {name: f"/task/data/{name}" for name in datasets}
        return cls("/task/work", "/tmp", "/task/out", "/task/inputs.json", python_path, found)


def python_folder() -> str:
    """Folder of the agent's own interpreter, first in a task's PATH so that `python` is that one."""
    return os.path.dirname(sys.executable)


def package_folder() -> str:
    """Folder of the rmctl package itself."""
    return os.path.dirname(os.path.abspath(rmctl.__file__))


def package_is_installed() -> bool:
    """Whether the interpreter finds rmctl without PYTHONPATH."""
    return package_folder().startswith((sys.prefix + "/", sys.base_prefix + "/lib/"))


def build(assignment: Assignment, view: View) -> dict[str, str]:
    """All variables of the task. Raises `Refused` for a name or value that no process could be given."""
    environment = {
        "PATH": f"{python_folder()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": view.work,
        "LANG": "C.UTF-8",
        "TMPDIR": view.temporary,
        **assignment.env,
        **assignment.secrets,
    }
    if view.python_path:
        own = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{view.python_path}:{own}" if own else view.python_path
    gpus = ",".join(str(share.index) for share in assignment.gpus)
    environment |= {
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "void",
        "RM_JOB_ID": str(assignment.job),
        "RM_ATTEMPT": str(assignment.token),
        "RM_RANK": str(assignment.rank),
        "RM_SIZE": str(assignment.size),
        "RM_GROUP": assignment.group,
        "RM_TENANT": assignment.tenant,
        "RM_INPUTS": view.inputs,
        "RM_RESULT": view.out + "/result.json",
        "RM_CHECKPOINT": view.out + "/checkpoint",
        "RM_CHECKPOINT_DIR": view.out + "/saved",
        "RM_ARTIFACTS": view.out + "/artifacts",
    }
    if STATE_VARIABLE in assignment.env:
        environment[STATE_VARIABLE] = f"{view.out}/{STATE_SOCKET}"
    if assignment.datasets:
        environment["RM_DATASETS"] = json.dumps(dict(view.datasets))
    for name, value in environment.items():
        if not NAME.fullmatch(name):
            raise Refused(f"env: {name!r} is not a variable name; use letters, digits and underscores")
        if "\0" in value:
            raise Refused(f"env: the value of {name} contains a NUL character")
    return environment


def split(environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """(variables safe for a privileged helper, `NAME=value` arguments to hand to `env` behind it)."""
    safe = {name: value for name, value in environment.items() if not LOADER.fullmatch(name)}
    loader = [f"{name}={value}" for name, value in environment.items() if LOADER.fullmatch(name)]
    return safe, loader
