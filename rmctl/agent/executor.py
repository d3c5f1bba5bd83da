"""Runs the placements of this node: starts, watches, ends, reports and forgets them.

Everything happens in one event loop. Small file operations are done in it directly; what may take long
(bundles, artifacts, walking or removing large folders) goes to threads.
"""

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from rmctl.agent import bundles, cgroups, checkpoints, containers, doors, launch, masks, output, process, sandbox
from rmctl.agent.errors import PortalAway, PortalRefusal, Refused
from rmctl.agent.holdings import visible
from rmctl.agent.journal import Spares, State, TaskFolder
from rmctl.agent.logs import LogShipper
from rmctl.agent.outbox import Outbox
from rmctl.agent.portal import Portal
from rmctl.agent.protocol import Assignment, Checkpoint, EndReason, Held, Isolation, Report, ReportKind, Stop, Usage
from rmctl.agent.task import Exit, Key, Task, end_reason, reap

STARTERS = 8
UPLOADS = 4
# How often a portal that answers may fail to store an artifact before the task's end is reported without it.
UPLOAD_FAILURES = 60
POLL_SECONDS = 0.25
SETTLE_TRIES = 20
STORAGE_SECONDS = 3.0
STORAGE_AFTER_SECONDS = 2.0
KILL_AGAIN_SECONDS = 1.0
MAX_RETRY_SECONDS = 5.0
REMEMBERED = 10_000

logger = logging.getLogger("rmctl.agent")


class Executor:
    """The placements of this node. `recovery.recover` fills it first; then `start`, `stop` and `refuse`."""

    def __init__(
        self, data: str, portal: Portal, box: sandbox.Sandbox, groups: cgroups.Cgroups,
        runtime: containers.Runtime | None, datasets: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.root = f"{data}/tasks"
        self.portal = portal
        self.box = box
        self.cgroups = groups
        self.runtime = runtime
        self.datasets = datasets or {}
        self.isolation = isolation(box, groups)
        self.boot_id = process.boot_id()
        self.tasks: dict[Key, Task] = {}
        self.shipper = LogShipper()
        self.outbox = Outbox(self._report_acknowledged)
        self.bundles = bundles.BundleCache(f"{data}/bundles", portal)
        self.doors = doors.Doors(portal)
        self.saver = checkpoints.Checkpoints(f"{data}/checkpoints", portal)
        self._forgotten: OrderedDict[Key, None] = OrderedDict()
        self._busy_groups: list[str] = []
        self._to_start: asyncio.Queue[Task] = asyncio.Queue()
        self._uploads = asyncio.Semaphore(UPLOADS)
        self._background: set[asyncio.Task[None]] = set()
        self._active = asyncio.Event()
        self._idle = asyncio.Event()
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        # Only where a task can reach nothing but its own folders is an old folder as good as a new one.
        self.spares = Spares(f"{data}/spare", box.owner(0), box.folder_modes) if box.wrappers else None

    # What the portal asks

    def held(self) -> list[Held]:
        return [Held(*task.key, task.phase) for task in self.tasks.values()]

    def running(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.phase == "running" and not task.over]

    def checkpoints(self) -> list[Checkpoint]:
        """The latest one of each running task that has one; of those that the portal keeps, the latest that it has.

        What is new of these is stored from here on.
        """
        found = []
        for task in self.running():
            at = output.checkpoint_time(task.folder.checkpoint)
            if at is not None and self.saver.uses_folder(task):
                if self.saver.is_due(task, at) and not task.saving:
                    task.saving = True
                    self._in_background(self._save(task, at))
                at = task.saved_at or None
            if at is not None:
                found.append(Checkpoint(*task.key, at))
        return found

    async def _save(self, task: Task, at: float) -> None:
        """Store a checkpoint while the task runs."""
        try:
            await self.saver.save(task, at, lambda: not task.over and not task.unwanted)
        finally:
            task.saving = False

    def start(self, assignment: Assignment) -> None:
        """Take a placement on; one that is held, or was until a moment ago, is not started again."""
        key = (assignment.placement, assignment.token)
        if key in self.tasks or key in self._forgotten:
            return
        task = Task(assignment, TaskFolder(self.root, *key))
        self.tasks[key] = task
        self._to_start.put_nowait(task)

    def stop(self, stop: Stop) -> None:
        """End a placement as the portal wishes; one that is not held is ignored."""
        task = self.tasks.get((stop.placement, stop.token))
        if task is not None:
            self.end(task, "stopped", stop.reason, stop.grace_seconds)

    def refuse(self, key: Key) -> None:
        """The portal has a newer token for this placement's job: end it and forget it."""
        task = self.tasks.get(key)
        if task is not None:
            self._discard(task, task.assignment.grace_seconds)

    async def stop_all(self, grace_seconds: float) -> None:
        """End and forget everything and wait for it: this node does not belong to the portal any more."""
        for task in list(self.tasks.values()):
            self._discard(task, grace_seconds)
        while self.tasks:
            self._idle.clear()
            await self._idle.wait()
        while self._background:
            await asyncio.wait(self._background)

    def _discard(self, task: Task, grace_seconds: float) -> None:
        task.unwanted = True
        self.outbox.forget(task.key)
        if task.phase == "ended":
            self._forget(task)
        else:
            self.end(task, "stopped", "", min(grace_seconds, task.assignment.grace_seconds))

    # Starting

    async def run_starter(self) -> None:
        """Start what is waiting, one after the other; `STARTERS` of these run at the same time."""
        while True:
            task = await self._to_start.get()
            try:
                await self._prepare(task)
                if task.ending is None:
                    self._launch(task)
                else:
                    self._end_unstarted(task, task.ending, task.ending_detail)
            except (Refused, OSError) as error:
                self._end_unstarted(task, "refused", self._refusal(error))
            await asyncio.sleep(0)  # let reports and acknowledgements through between two starts

    async def _prepare(self, task: Task) -> None:
        """Fetch the bundle, which may take long, then make the folder. Raises Refused, OSError."""
        assignment = task.assignment
        archive = await self._fetch(task, assignment.bundle) if assignment.bundle else ""
        if task.ending is not None:
            return
        owner = self._owner(task)
        if self.spares and not assignment.image:
            self.spares.create(task.folder, assignment)
        else:
            task.folder.create(assignment, self.box.folder_modes, owner)
        if archive:
            await asyncio.to_thread(
                bundles.unpack, archive, task.folder.work, assignment.storage_bytes, owner
            )
        if assignment.saved is not None:
            await self.saver.restore(task, assignment.saved, owner, lambda: task.ending is None)

    async def _fetch(self, task: Task, digest: str) -> str:
        delay = 0.1
        while task.ending is None:
            try:
                return await self.bundles.get(digest)
            except PortalAway:
                await _wait(task.stopping, delay)
                delay = min(delay * 2, MAX_RETRY_SECONDS)
        return ""

    def _owner(self, task: Task) -> int | None:
        if task.assignment.image and self.runtime:
            return self.runtime.user if os.geteuid() == 0 else None
        return self.box.owner(task.assignment.placement)

    def _launch(self, task: Task) -> None:
        """Start the task's process under its limits. Raises Refused, OSError; then nothing is left running."""
        assignment, groups, container = task.assignment, list[str](), ""
        datasets = visible(self.datasets, assignment.datasets)
        try:
            if assignment.image:
                if self.runtime is None:
                    raise Refused("image: this node has no container runtime; install docker or podman on it")
                container = f"rmportal-{task.name}"
                plan = self.runtime.launch(task.folder, assignment, container, datasets)
                enforced = self.runtime.enforced()
                started_at = time.time()
                started = launch.start(plan, task.folder.log)
            else:
                groups = self.cgroups.create(task.name, _limits(assignment))
                enforced = claims(self.isolation)
                started_at = time.time()
                started = self.box.start(task.folder, assignment, groups, self.isolation, datasets)
        except (Refused, OSError):
            groups = self.cgroups.task_groups(task.name)
            cgroups.kill(groups)
            self.sweep(groups)
            raise
        ticks = process.start_ticks(started.pid) or 0
        wrappers = 0 if container else self.box.wrappers
        state = State(started.pid, ticks, self.boot_id, started_at, wrappers, groups, container, enforced)
        try:
            task.folder.write_state(state)
        except OSError as error:
            # It runs already; after a restart the agent finds its process by the folder's name.
            logger.warning("task %s: its state could not be written: %s", task.name, error)
        self.adopt(task, state, started)

    def adopt(self, task: Task, state: State, started: launch.Started) -> None:
        """Watch a task whose process runs."""
        task.state, task.phase, task.is_child = state, "running", started.is_child
        self.tasks[task.key] = task
        self.doors.open(task)
        self.follow(task)
        self.outbox.add(task.started_report(state))
        task.pidfd = started.descriptor
        process.watch(task.pidfd, lambda: self._exited(task))
        loop = asyncio.get_running_loop()
        if task.assignment.time_limit_seconds > 0:
            left = task.assignment.time_limit_seconds - (time.time() - state.started_at)
            task.timers.append(loop.call_later(max(0.0, left), self._time_is_up, task))
        if task.ending is not None:
            task.timers.append(loop.call_later(task.assignment.grace_seconds, self._kill, task))

    def follow(self, task: Task) -> None:
        """Ship the task's log from now on."""
        self.shipper.add(task.key, task.folder.log, lambda: self._log_shipped(task), _masks(task))
        self._active.set()

    def _end_unstarted(self, task: Task, reason: EndReason, detail: str) -> None:
        """Report a task that never had a process, and clear away what was prepared of it."""
        task.over, task.phase, task.shipped = True, "ended", True
        self._remove_folder(task)
        if task.unwanted:
            self._forget(task)
        else:
            self.outbox.add(Report(*task.key, "ended", at=time.time(), reason=reason, detail=detail))

    def _refusal(self, error: Refused | OSError) -> str:
        if isinstance(error, Refused):
            return str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the node's disk is full where the agent keeps its tasks ({self.root}); free some space there"
        if error.errno == errno.E2BIG:
            return "command, env: together they are longer than the system allows; pass large data as inputs"
        return f"the task could not be started: {error}"

    # Ending

    def end(self, task: Task, reason: EndReason, detail: str, grace_seconds: float) -> None:
        """SIGTERM to the whole task, SIGKILL after the grace. Does nothing when it is ending already."""
        if task.over or task.ending is not None:
            return
        task.ending, task.ending_detail = reason, detail
        task.stopping.set()
        if task.state is None:
            return  # the starter sees it
        try:
            task.folder.write_ending(f"{reason}\n{detail}")
        except OSError as error:
            logger.warning("task %s: the reason of its end could not be written: %s", task.name, error)
        if task.state.container and self.runtime:
            self._in_background(self.runtime.signal(task.state.container, "TERM"))
            asked = True
        else:
            asked = grace_seconds > 0 and process.terminate(
                task.state.pid, task.groups, task.state.wrappers
            )
        if asked:
            timer = asyncio.get_running_loop().call_later(grace_seconds, self._kill, task)
            task.timers.append(timer)
        else:
            self._kill(task)

    def _time_is_up(self, task: Task) -> None:
        limit = task.assignment.time_limit_seconds
        self.end(
            task,
            "time_limit",
            f"it ran longer than its time limit of {limit:g} s",
            task.assignment.grace_seconds,
        )

    def _kill(self, task: Task, again: bool = False) -> None:
        if task.over or task.state is None:
            return
        if task.state.container and self.runtime:
            self._in_background(self.runtime.signal(task.state.container, "KILL"))
        if again or not task.state.container:
            process.kill(task.state.pid, task.groups)
        loop = asyncio.get_running_loop()
        task.timers.append(loop.call_later(KILL_AGAIN_SECONDS, self._kill, task, True))

    def _exited(self, task: Task) -> None:
        """The task's shell is gone: called once by its pidfd."""
        process.unwatch(task.pidfd)
        if task.state is None:
            return
        now = time.time()
        process.kill_leftovers(task.state.pid, task.groups, task.is_child)
        if task.is_child:
            ended = reap(task.state.pid, now, counts=not task.state.wrappers)
        else:
            status = task.folder.exit_status()
            ended = Exit(status[0] if status else None, now)
        self.finish(task, ended)

    def finish(self, task: Task, ended: Exit) -> None:
        """The task is over: settle why, then upload, report and ship what it left."""
        task.over = True
        task.cancel_timers()
        self.doors.close(task)
        if ended.status is None and task.state is not None:
            process.kill(task.state.pid, task.groups)  # its shell vanished: the rest may still be there
        reason, detail = end_reason(task, ended.status)
        peak = cgroups.memory_peak(task.groups)
        seconds = cgroups.cpu_seconds(task.groups) or ended.cpu_seconds
        self.sweep(task.groups)
        if task.unwanted:
            task.phase = "ended"
            self._forget(task)
            return
        size = 0
        try:
            _, size = output.read_result(task.folder.result)
        except output.ResultInvalid as error:
            if reason == "exited" and ended.status == 0:
                reason, detail = "result_invalid", str(error)
        started_at = task.state.started_at if task.state else ended.at
        used = Usage(max(0.0, ended.at - started_at), seconds, peak, task.storage_bytes)
        code = ended.status
        number = code - 128 if code is not None and 128 < code <= 192 else None
        report = Report(
            *task.key,
            "ended",
            at=ended.at,
            exit_code=code,
            signal=number,
            reason=reason,
            detail=detail,
            usage=used,
            checkpoint_at=output.checkpoint_time(task.folder.checkpoint),
        )
        if _has_entries(task.folder.artifacts) or self._saves_last(task, report):
            self._in_background(self._upload_and_report(task, report, size))
        else:
            self._report_end(task, report, size)

    def _report_end(self, task: Task, report: Report, result_size: int) -> None:
        task.phase = "ended"
        log_size = self.shipper.end(task.key)
        path = task.folder.result if result_size and report.reason != "result_invalid" else ""
        self.outbox.add(msgspec.structs.replace(report, log_size=log_size), path, result_size)
        self.shipper.settle(task.key)

    def _saves_last(self, task: Task, report: Report) -> bool:
        """Whether its last checkpoint has to be looked at before its end is told: not of who has done what it was to.
        """
        succeeded = report.reason == "exited" and report.exit_code == 0
        return not succeeded and report.checkpoint_at is not None and self.saver.uses_folder(task)

    async def _upload_and_report(self, task: Task, report: Report, result_size: int) -> None:
        if self._saves_last(task, report) and report.checkpoint_at is not None:
            await self.saver.save(task, report.checkpoint_at, lambda: not task.unwanted)
            report = msgspec.structs.replace(report, checkpoint_at=task.saved_at or None)
        found, complaints = await asyncio.to_thread(output.artifacts, task.folder.artifacts)
        async with self._uploads:
            for name, path in found:
                complaint = await self._upload(task, name, path)
                complaints += [complaint] if complaint else []
        if task.unwanted:
            task.phase = "ended"
            self._forget(task)
            return
        detail = "; ".join(filter(None, [report.detail, task.complaint, *complaints[:5]]))
        self._report_end(task, msgspec.structs.replace(report, detail=detail), result_size)

    async def _upload(self, task: Task, name: str, path: str) -> str:
        """Store one artifact, trying again while the portal is away; returns a complaint when it cannot be."""
        delay, failures = 0.1, 0
        while not task.unwanted:
            try:
                await asyncio.to_thread(self.portal.put_artifact, *task.key, name, path)
                return ""
            except PortalAway as error:
                failures += error.answered
                if failures >= UPLOAD_FAILURES:
                    return f"artifact {name!r} could not be stored: {error}"
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_SECONDS)
            except PortalRefusal as error:
                return f"artifact {name!r} was refused: {error}"
            except OSError as error:
                return f"artifact {name!r} cannot be read: {error.strerror}"
        return ""

    # Afterwards

    def _report_acknowledged(self, key: Key, kind: ReportKind) -> None:
        task = self.tasks.get(key)
        if task is not None and kind == "ended":
            task.reported = True
            self._forget_when_done(task)

    def _log_shipped(self, task: Task) -> None:
        task.shipped = True
        self._forget_when_done(task)

    def _forget_when_done(self, task: Task) -> None:
        if task.reported and task.shipped:
            self._forget(task)

    def _forget(self, task: Task) -> None:
        if self.tasks.pop(task.key, None) is None:
            return
        self.shipper.forget(task.key)
        self.outbox.forget(task.key)
        self.saver.forget(task)
        self._forgotten[task.key] = None
        if len(self._forgotten) > REMEMBERED:
            self._forgotten.popitem(last=False)
        self._remove_folder(task)
        if not self.tasks:
            self._idle.set()

    def _remove_folder(self, task: Task) -> None:
        rest = task.folder if self.spares is None or task.assignment.image else self.spares.keep(task.folder)
        if rest is not None:
            self._in_background(asyncio.to_thread(rest.remove))

    def sweep(self, groups: list[str]) -> None:
        """Remove groups, later again those in which something still dies."""
        self._busy_groups += cgroups.remove(groups)
        self._active.set()

    async def settle_groups(self) -> None:
        """Wait a moment for the groups of killed tasks, whose processes the kernel may still be clearing away."""
        for _ in range(SETTLE_TRIES):
            self._busy_groups = cgroups.remove(self._busy_groups)
            if not self._busy_groups:
                return
            await asyncio.sleep(POLL_SECONDS / 5)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)

    # Watching

    async def run_log_poll(self) -> None:
        """Ship what running tasks write, a few times a second while there are any."""
        while True:
            await self._active.wait()
            while self.tasks or self._busy_groups:
                self.shipper.poll()
                self._busy_groups = cgroups.remove(self._busy_groups)
                await asyncio.sleep(POLL_SECONDS)
            self._active.clear()

    async def run_storage_watch(self) -> None:
        """Measure the folders of tasks that run for a while, and end those that pass their storage."""
        pause = STORAGE_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            for task in self.running():
                if task.state is None or time.time() - task.state.started_at < STORAGE_AFTER_SECONDS:
                    continue
                task.storage_bytes = await asyncio.to_thread(output.storage_used, [task.folder.path])
                limit = task.assignment.storage_bytes
                if task.storage_bytes > limit:
                    detail = f"it used {task.storage_bytes} bytes of disk, its storage is {limit}"
                    self.end(task, "storage_limit", detail, 0.0)
            # Huge folders are measured less often, so that measuring never takes more than a twentieth.
            pause = max(STORAGE_SECONDS, 20 * (time.monotonic() - began))


def isolation(box: sandbox.Sandbox, groups: cgroups.Cgroups) -> Isolation:
    """What this node enforces, from what was tried."""
    memory, pids = groups.version("memory"), groups.version("pids")
    if pids == "none":
        if box.filesystem == "bubblewrap" and os.geteuid() != 0:
            pids = "rlimit (namespace)"
        elif box.filesystem == "user" or (box.filesystem == "none" and os.geteuid() != 0):
            pids = "rlimit (user)"
    owner = box.owner(0)
    user = "agent" if owner is None else "nobody" if owner == sandbox.NOBODY else "own"
    return Isolation(
        filesystem=box.filesystem,
        cpu=groups.version("cpu"),
        memory="address space" if memory == "none" else memory,
        pids=pids,
        storage="file size + measured",
        time="agent",
        user=user,
    )


def claims(found: Isolation) -> dict[str, str]:
    """The `enforced` of a started report."""
    names = ("cpu", "memory", "pids", "storage", "filesystem", "time", "user")
    return {name: getattr(found, name) for name in names}


def _limits(assignment: Assignment) -> cgroups.Limits:
    return cgroups.Limits(
        assignment.cpu_millicores, assignment.cpu_limit_millicores, assignment.memory_bytes, assignment.pids
    )


def _masks(task: Task) -> masks.Masks:
    """The secrets that the task's log must not show; those of a task that was adopted are read from its process."""
    names = task.assignment.masked
    if not names:
        return masks.NOTHING
    values = task.assignment.secrets or (masks.of_process(task.state.pid, names) if task.state else {})
    return masks.Masks(masks.secret_texts(names, values))


def _has_entries(folder: str) -> bool:
    try:
        # The task may have put a link in its place: then the upload is to say so.
        return os.path.islink(folder) or bool(os.listdir(folder))
    except OSError:
        return False


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
