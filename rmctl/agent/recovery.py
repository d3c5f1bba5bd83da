"""Taking up the journal after a restart: running tasks are watched again, ended ones reported, vanished ones lost."""

import logging
import os
import time

import psutil  # type: ignore[import-untyped]

from rmctl.agent import cgroups, process
from rmctl.agent.executor import Executor
from rmctl.agent.journal import State, TaskFolder, stored_folders
from rmctl.agent.launch import Started
from rmctl.agent.protocol import Assignment, EndReason
from rmctl.agent.task import Exit, Task

logger = logging.getLogger("rmctl.agent")

ENDINGS: dict[str, EndReason] = {
    "stopped": "stopped", "time_limit": "time_limit", "storage_limit": "storage_limit",
}  # fmt: skip


def recover(executor: Executor) -> None:
    """Fill the executor from the journal, and end what no folder stands for."""
    for placement, token in stored_folders(executor.root):
        folder = TaskFolder(executor.root, placement, token)
        assignment = folder.assignment() or Assignment(
            placement=placement, token=token, job=0, attempt=0, name="", tenant="", command=[]
        )
        task = Task(assignment, folder)
        executor.tasks[task.key] = task
        reason, _, detail = folder.ending().partition("\n")
        if reason in ENDINGS:
            task.ending, task.ending_detail = ENDINGS[reason], detail
        _take_up(executor, task)
    kept = [task.name for task in executor.running()]
    for groups in executor.cgroups.leftovers(kept):
        cgroups.kill(groups)
        executor.sweep(groups)


def _take_up(executor: Executor, task: Task) -> None:
    state = task.folder.state() or _find(executor, task)
    if state is not None and state.boot_id == executor.boot_id and _is_alive(state):
        try:
            started = Started(state.pid, os.pidfd_open(state.pid), is_child=False)
        except ProcessLookupError:
            pass  # it ended in between
        else:
            executor.adopt(task, state, started)
            logger.info("task %s: still running as process %d", task.name, state.pid)
            return
    status = task.folder.exit_status()
    if state is not None and state.boot_id != executor.boot_id:
        state, status = None, None
        task.ending, task.ending_detail = "lost", "the node was restarted"
    elif state is None and status is None and task.ending is None:
        task.ending, task.ending_detail = "lost", "the agent was ended while it prepared this task"
    task.state = state
    if state is not None:
        executor.outbox.add(task.started_report(state))
    executor.follow(task)
    executor.finish(task, Exit(status[0], status[1]) if status else Exit(None, time.time()))


def _is_alive(state: State) -> bool:
    ticks = process.start_ticks(state.pid)
    return ticks is not None and ticks == state.start_ticks


def _find(executor: Executor, task: Task) -> State | None:
    """The state of a task whose agent was killed between starting it and writing the state."""
    pid = process.find_shell(task.folder.path)
    ticks = process.start_ticks(pid) if pid is not None else None
    if pid is None or ticks is None:
        return None
    started_at = psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    groups = [group for group in executor.cgroups.task_groups(task.name) if os.path.isdir(group)]
    image = task.assignment.image
    return State(
        pid, ticks, executor.boot_id, started_at,
        wrappers=0 if image else executor.box.wrappers,
        groups=groups,
        container=f"rmportal-{task.name}" if image else "",
    )  # fmt: skip
