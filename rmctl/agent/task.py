"""One placement on this node: what the agent knows about it, and what its end means."""

import asyncio
import os
from dataclasses import dataclass, field

from rmctl.agent import cgroups
from rmctl.agent.journal import State, TaskFolder
from rmctl.agent.protocol import Assignment, EndReason, HeldState, Report

Key = tuple[int, int]

# Statuses of the task's shell with a meaning of their own. A program that the kernel ended for writing past the
# file size limit leaves 128 + SIGXFSZ; 125 says that a limit (or a container) could not be set up.
FILE_SIZE_STATUS = 128 + 25
SETUP_STATUS = 125


@dataclass(slots=True)
class Task:
    """A placement that the agent holds. Times are Unix seconds."""

    assignment: Assignment
    folder: TaskFolder
    phase: HeldState = "preparing"
    state: State | None = None
    # Why the agent is ending it; None while it runs by itself.
    ending: EndReason | None = None
    ending_detail: str = ""
    # The portal refused it: end it and forget it, without a report.
    unwanted: bool = False
    is_child: bool = False
    pidfd: int = -1
    # Set when it is to be ended while it waits for its bundle.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    # Its process is gone; what remains is to upload, report and forget.
    over: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    storage_bytes: int = 0
    # Of which time its checkpoint is that the portal has, and that could not be stored, with what is said of it.
    saved_at: float = 0.0
    saving_failed_at: float = 0.0
    complaint: str = ""
    saving: bool = False
    reported: bool = False
    shipped: bool = False

    @property
    def key(self) -> Key:
        return self.assignment.placement, self.assignment.token

    @property
    def name(self) -> str:
        return f"{self.assignment.placement}-{self.assignment.token}"

    @property
    def groups(self) -> list[str]:
        return self.state.groups if self.state else []

    def started_report(self, state: State) -> Report:
        return Report(*self.key, "started", at=state.started_at, pid=state.pid, enforced=state.enforced)

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task's shell ended. `status` is None when it vanished without leaving one."""

    status: int | None
    at: float
    cpu_seconds: float = 0.0


def reap(pid: int, at: float, counts: bool) -> Exit:
    """Collect an ended child of the agent. Its `cpu_seconds` include its descendants' if it waited for them
    (`counts`), which processes around the task do not do."""
    _, wait_status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    status = code if code >= 0 else None
    # ru_maxrss would be the agent's own: a spawned process starts out in its parent's memory.
    return Exit(status, at, used.ru_utime + used.ru_stime if counts else 0.0)


def end_reason(task: Task, status: int | None) -> tuple[EndReason, str]:
    """Why the task ended, and a detail for people; to be asked before its groups are removed."""
    if task.ending is not None:
        return task.ending, task.ending_detail
    if status is None:
        return "lost", "its process vanished without leaving an exit status"
    if status == 0:
        return "exited", ""
    assignment = task.assignment
    if status == SETUP_STATUS:
        if refusal := task.folder.refusal():
            return "refused", f"its limits could not be set: {refusal}"
        if task.state and task.state.container:
            return (
                "refused",
                f"image: the container of {assignment.image!r} could not be run; the log says why",
            )
    if cgroups.out_of_memory_kills(task.groups):
        return "memory_limit", f"it needed more than its memory of {assignment.memory_bytes} bytes"
    if status == FILE_SIZE_STATUS:
        return "storage_limit", f"it wrote a file larger than its storage of {assignment.storage_bytes} bytes"
    if cgroups.refused_forks(task.groups):
        return "pids_limit", f"it needed more than its {assignment.pids} processes"
    return "exited", ""
