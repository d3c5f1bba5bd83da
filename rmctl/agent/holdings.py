"""What lies ready on this node: container images that its runtime has, and datasets that its operator declared."""

import asyncio
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rmctl.agent.containers import Runtime
from rmctl.agent.errors import AgentError
from rmctl.agent.protocol import Holdings
from rmctl.names import DATASET, canonical_image

# Images that are told of, the newest first, and how often is looked (seconds): at images, and at sizes of datasets.
IMAGES_MAX = 500
IMAGES_EVERY = 300.0
SIZES_EVERY = 3600.0
LISTING_SECONDS = 30.0
DATASETS_MAX = 100

logger = logging.getLogger("rmctl.agent")


def declared(items: Iterable[str]) -> dict[str, str]:
    """Datasets by name from `NAME=PATH`, with absolute paths. Raises AgentError for what is not one."""
    found: dict[str, str] = {}
    for item in items:
        name, _, path = item.partition("=")
        if not DATASET.fullmatch(name) or not path:
            raise AgentError(
                f"dataset: {item!r} is not NAME=PATH with a name of 1 to 63 letters, digits and inner _ . -"
            )
        if name in found:
            raise AgentError(f"dataset: {name} is given twice")
        if not os.path.exists(path):
            raise AgentError(f"dataset: {path} of {name} does not exist")
        found[name] = os.path.abspath(path)
    if len(found) > DATASETS_MAX:
        raise AgentError(f"dataset: {len(found)} datasets; a node declares at most {DATASETS_MAX}")
    return found


class Store:
    """Looks at them in the background; `told` is called whenever they are others than before."""

    def __init__(self, runtime: Runtime | None, datasets: Mapping[str, str]) -> None:
        self._runtime, self._datasets = runtime, datasets
        self._sizes: dict[str, int] = {}
        self.now = Holdings()
        self.told: Callable[[Holdings], None] = lambda _: None

    async def run(self) -> None:
        """Look again and again."""
        loop = asyncio.get_running_loop()
        measured = -SIZES_EVERY
        while True:
            await self.look()
            if loop.time() - measured >= SIZES_EVERY:
                measured = loop.time()
                for name, path in self._datasets.items():
                    self._sizes[name] = await asyncio.to_thread(size_of, path)
                await self.look()
            await asyncio.sleep(IMAGES_EVERY)

    async def look(self) -> None:
        """Find what is there now; datasets that have not been measured yet count as empty."""
        images = await asyncio.to_thread(list_images, self._runtime) if self._runtime else []
        there = {name: self._sizes.get(name, 0) for name, path in self._datasets.items() if os.path.exists(path)}
        found = Holdings(images, there)
        if found != self.now:
            self.now = found
            self.told(found)


def size_of(path: str) -> int:
    """Bytes of a file, or of all files below a folder, links not followed."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.exists(path) else 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # It went meanwhile.
    return total


def list_images(runtime: Runtime) -> list[str]:
    """The full names of the images that a runtime has; none where it does not answer."""
    argv = [runtime.path, "image", "ls", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"]
    try:
        answer = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LISTING_SECONDS, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        logger.warning("%s could not list its images: %s", runtime.name, error)
        return []
    found: dict[str, None] = {}
    for line in answer.stdout.splitlines():
        repository, tag, digest = [*line.split(), "", "", ""][:3]
        if re.search("[<>]", repository) or not repository:
            continue
        for name in (f"{repository}:{tag}", f"{repository}@{digest}"):
            if not re.search("[<>]|[:@]$", name):
                found[canonical_image(name)] = None
    return sorted(list(found)[:IMAGES_MAX])


def visible(datasets: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """Those of the wanted datasets that are on this node, with their paths."""
    return {name: datasets[name] for name in wanted if name in datasets and Path(datasets[name]).exists()}
