"""Tasks in containers, through the docker or podman that the node has: found by asking it, limited by it."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from rmctl.agent import environment
from rmctl.agent.errors import Refused
from rmctl.agent.journal import TaskFolder
from rmctl.agent.launch import Launch
from rmctl.agent.protocol import Assignment
from rmctl.agent.sandbox import HELPER_PATH, NO_DATASETS, NOBODY, SHELL

# The runtime's own settings must not come from a tenant; such names go to the container on the command line.
CLIENT = re.compile(
    r"(DOCKER|PODMAN|CONTAINER|XDG|REGISTRY|STORAGE|BUILDAH|DBUS)S?_.*|.*_PROXY|.*_proxy|HOME|TMPDIR|PATH"
)
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")


@dataclass(frozen=True)
class Runtime:
    """A container runtime that answers: `name` is `docker` or `podman`."""

    name: str
    path: str

    @property
    def user(self) -> int:
        return NOBODY if os.geteuid() == 0 else os.getuid()

    @property
    def group(self) -> int:
        return NOBODY if os.geteuid() == 0 else os.getgid()

    def launch(
        self,
        folder: TaskFolder,
        assignment: Assignment,
        container: str,
        datasets: Mapping[str, str] = NO_DATASETS,
    ) -> Launch:
        """How to run the assignment's image. Raises Refused."""
        image = assignment.image or ""
        if not IMAGE.fullmatch(image):
            raise Refused(f"image: {image!r} is not the name of a container image")
        view = environment.View.inside("/task/lib", datasets)
        variables = environment.build(assignment, view)
        if "PATH" not in assignment.env:
            del variables["PATH"]  # the image knows where its programs are
        argv = [self.path, "run", "--rm", "--name", container, *self._limits(assignment)]
        argv += ["--volume", f"{folder.work}:/task/work", "--volume", f"{folder.out}:/task/out"]
        argv += ["--volume", f"{folder.temporary}:/tmp", "--volume", f"{folder.inputs}:/task/inputs.json:ro"]
        argv += ["--volume", f"{environment.package_folder()}:/task/lib/rmctl:ro", "--workdir", "/task/work"]
        for name, path in datasets.items():
            if "," in path:
                raise Refused(f"datasets: the path of {name} has a comma, which no container can be given")
            argv += ["--mount", f"type=bind,source={path},target={view.datasets[name]},readonly"]
        client = {"PATH": HELPER_PATH, "HOME": os.environ.get("HOME", "/")}
        for name in ("XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS"):
            if name in os.environ:
                client[name] = os.environ[name]
        for name, value in variables.items():
            if (
                name in assignment.secrets
                and not CLIENT.fullmatch(name)
                and not environment.LOADER.fullmatch(name)
            ):
                client[name] = value  # by name only: a command line could be read by every user of the node
                argv += ["--env", name]
            else:
                argv += ["--env", f"{name}={value}"]
        argv += [image, *_command(assignment)]
        return Launch(
            ["/bin/sh", "-c", SHELL, "rmportal-task", folder.path, "0", "0", "0", "", "--", *argv], client
        )

    def _limits(self, assignment: Assignment) -> list[str]:
        memory = str(assignment.memory_bytes)
        arguments = [
            "--memory", memory, "--memory-swap", memory,
            "--cpus", f"{assignment.cpu_limit_millicores / 1000:.3f}",
            "--cpu-shares", str(max(2, assignment.cpu_millicores * 1024 // 1000)),
            "--pids-limit", str(assignment.pids),
            "--ulimit", "core=0", "--ulimit", f"fsize={assignment.storage_bytes}",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--user", f"{self.user}:{self.group}",
        ]  # fmt: skip
        if self.name == "podman" and os.geteuid() != 0:
            arguments += ["--userns", "keep-id"]
        if assignment.gpus and self.name == "docker":
            arguments += [
                "--gpus",
                '"device=' + ",".join(str(share.index) for share in assignment.gpus) + '"',
            ]
        elif assignment.gpus:
            for share in assignment.gpus:
                arguments += ["--device", f"nvidia.com/gpu={share.index}"]
        return arguments

    def enforced(self) -> dict[str, str]:
        """What may be claimed of a task in a container of this runtime."""
        limits = dict.fromkeys(("cpu", "memory", "pids", "filesystem"), self.name)
        return {**limits, "storage": "file size + measured", "time": "agent", "user": str(self.user)}

    async def signal(self, container: str, name: str) -> None:
        """Send a signal to the container; one that is not there any more is no error."""
        process = await asyncio.create_subprocess_exec(
            self.path, "kill", "--signal", name, container,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()


def _command(assignment: Assignment) -> list[str]:
    """The argv in the image; a script for bash is run by sh in an image that has no bash."""
    if assignment.command[:2] == ["bash", "-c"] and len(assignment.command) == 3:
        shell = 'if command -v bash >/dev/null 2>&1; then exec bash -c "$0"; else exec sh -c "$0"; fi'
        return ["sh", "-c", shell, assignment.command[2]]
    return assignment.command


def probe() -> Runtime | None:
    """The first runtime that answers within a few seconds."""
    for name in ("docker", "podman"):
        path = shutil.which(name, path=HELPER_PATH)
        if path is None:
            continue
        try:
            subprocess.run(
                [path, "info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return Runtime(name, path)
    return None
