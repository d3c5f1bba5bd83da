"""`rmctl agent join` and `rmctl agent run`: the two ways into the agent."""

import asyncio
import fcntl
import hashlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rmctl.agent import cgroups, containers, executor, holdings, sandbox
from rmctl.agent.errors import AgentError, PortalAway
from rmctl.agent.inventory import Hardware
from rmctl.agent.journal import write_atomically
from rmctl.agent.link import Link, Revoked
from rmctl.agent.portal import Portal, portal
from rmctl.agent.recovery import recover

EXIT_STOPPED = 0
EXIT_REVOKED = 3
REVOKED_GRACE_SECONDS = 5.0

logger = logging.getLogger("rmctl.agent")


class Credential(msgspec.Struct, frozen=True):
    """What a node got when it joined; `DATA/credential.json`, readable by the agent's user only."""

    url: str
    node: int
    credential: str


class Lock:
    """The right to use a data folder, held while the process lives."""

    def __init__(self, data: str) -> None:
        self._descriptor = os.open(f"{data}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise AgentError(
                f"data: another agent is using {data}; stop it or choose another folder"
            ) from error

    def release(self) -> None:
        os.close(self._descriptor)


def join(url: str, token: str, name: str, data: str) -> int:
    """Trade a one-time join token for this node's credential, kept in `data`; returns the node's id.

    Raises AgentError (JoinRefused for a token that is wrong, used or expired).
    """
    lock, folder = _open(data)
    try:
        asked = portal(url)
        box, groups, runtime = _probe(folder)
        runtimes = ["process", *([runtime.name] if runtime else [])]
        inventory = Hardware(folder).inventory(runtimes, executor.isolation(box, groups))
        box.close()
        cgroups.remove(groups.folders())
        answer = asked.join(token, name, msgspec.to_builtins(inventory))
        credential = msgspec.convert({"url": asked.url, **answer}, Credential)
        write_atomically(f"{folder}/credential.json", msgspec.json.encode(credential), durable=True)
        return credential.node
    except PortalAway as error:
        raise AgentError(f"url: {error}") from error
    except msgspec.ValidationError as error:
        raise AgentError(f"url: {url} answered the join without node and credential: {error}") from error
    finally:
        lock.release()


def run(url: str | None, data: str, datasets: Sequence[str] = ()) -> int:
    """Run the agent until SIGTERM or SIGINT (0, its tasks run on) or until the portal revokes it (3).

    `url` overrides the address that the node joined at; `datasets` are NAME=PATH of what the node holds. Raises
    AgentError when it cannot start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    held = holdings.declared(datasets)
    lock, folder = _open(data)
    try:
        credential = _credential(folder)
        return asyncio.run(_run(portal(url or credential.url, credential.credential), folder, held))
    finally:
        lock.release()


def _open(data: str) -> tuple[Lock, str]:
    folder = os.path.abspath(data)
    try:
        os.makedirs(folder, mode=0o711, exist_ok=True)
        return Lock(folder), folder
    except OSError as error:
        raise AgentError(f"data: {folder} cannot be used: {error.strerror}") from error


def _credential(folder: str) -> Credential:
    path = Path(folder, "credential.json")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credential)
    except FileNotFoundError as error:
        raise AgentError(f"data: {folder} holds no credential; run `rmctl agent join` first") from error
    except (msgspec.DecodeError, OSError) as error:
        raise AgentError(f"data: {path} cannot be read: {error}; join again with a new token") from error


def _probe(
    folder: str, datasets: Mapping[str, str] = sandbox.NO_DATASETS
) -> tuple[sandbox.Sandbox, cgroups.Cgroups, containers.Runtime | None]:
    """Try what this node can enforce. The group's name keeps two agents on one machine apart."""
    name = "rmportal-" + hashlib.sha256(folder.encode()).hexdigest()[:8]
    groups = cgroups.probe(name)  # first of all, as the agent may have to step aside into another group for it
    return sandbox.probe(folder, datasets), groups, containers.probe()


async def _run(asked: Portal, folder: str, datasets: Mapping[str, str]) -> int:
    box, groups, runtime = _probe(folder, datasets)
    work = executor.Executor(folder, asked, box, groups, runtime, datasets)
    store = holdings.Store(runtime, datasets)
    await store.look()
    logger.info("isolation: %s", executor.claims(work.isolation))
    recover(work)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    link = asyncio.create_task(Link(asked, work, Hardware(folder), store).run())
    helpers: list[asyncio.Task[None]] = [
        asyncio.create_task(work.run_starter()) for _ in range(executor.STARTERS)
    ]
    helpers += [asyncio.create_task(work.run_log_poll()), asyncio.create_task(work.run_storage_watch())]
    helpers.append(asyncio.create_task(store.run()))
    stopping = asyncio.ensure_future(stopped.wait())
    # A helper never ends by itself: if one does, its error must end the agent, not leave half an agent.
    waited: list[asyncio.Task[Any]] = [link, stopping, *helpers]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    try:
        if stopping.done():
            return EXIT_STOPPED
        for task in (link, *helpers):
            if task.done():
                task.result()
        return EXIT_STOPPED
    except Revoked:
        logger.error(
            "the portal revoked this node's credential: its tasks are ended; join again with a new token"
        )
        await work.stop_all(REVOKED_GRACE_SECONDS)
        return EXIT_REVOKED
    finally:
        box.close()
        await work.settle_groups()
        cgroups.remove(groups.folders())  # those with running tasks in them stay
        for task in waited:
            task.cancel()
        await asyncio.gather(*waited, return_exceptions=True)
