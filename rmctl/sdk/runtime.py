"""Inside a running task: where its artifacts go, its checkpoints, and what it belongs to. Loaded by tasks that ask."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from typing import Any


class TaskSkipped(Exception):
    """Raised in a task: there is nothing to do, so it is skipped and not failed; it is not tried again."""

    exit_status = 99


class TaskFailed(Exception):
    """Raised in a task: it has failed, and trying again is of no use."""

    exit_status = 98


class Poked:
    """What a sensor may return in place of true or false: whether it is done, and then its result."""

    __slots__ = ("done", "value")

    def __init__(self, done: bool, value: "Any" = None) -> None:
        self.done = done
        self.value = value

    def __bool__(self) -> bool:
        return self.done


def artifact(name: str) -> "Path":
    """The path to write a file to that is kept with the run; folders in `name` are made.

    Outside a task it is in the folder `artifacts` of the current one. Raises ValueError for a name that
    leaves the folder.
    """
    from pathlib import Path

    if not name or os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"artifact {name!r}: give a relative name such as 'report.html' or 'plots/a.png'")
    path = Path(os.environ.get("RM_ARTIFACTS", "artifacts"), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def checkpoint() -> None:
    """Say that the task can go on from what it has saved by now, should it be evicted; outside a task, nothing.

    To be called when a checkpoint is complete: in `checkpoint_folder()`, which the portal stores then and gives to the
    next attempt, or in a place of the task's own that outlives the attempt. Raises OSError when something else than a
    file lies at `RM_CHECKPOINT`.
    """
    path = os.environ.get("RM_CHECKPOINT")
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.utime(descriptor)
        os.close(descriptor)


def checkpoint_folder() -> "Path":
    """The folder of checkpoints that the portal keeps; it holds what the attempt before has saved, if any.

    Outside a task it is the folder `saved` of the current one.
    """
    from pathlib import Path

    path = Path(os.environ.get("RM_CHECKPOINT_DIR", "saved"))
    path.mkdir(parents=True, exist_ok=True)
    return path


class Context:
    """What the running task belongs to; everything is empty outside a run."""

    __slots__ = (
        "attempt", "data_interval_end", "data_interval_start", "job_id", "logical_time", "map_index", "params",
        "run_id", "task_id", "workflow",
    )  # fmt: skip

    def __init__(self) -> None:
        env = os.environ
        self.run_id: str = env.get("RM_RUN_ID", "")
        self.workflow: str = env.get("RM_WORKFLOW", "")
        self.task_id: str = env.get("RM_TASK_ID", "")
        self.job_id: str = env.get("RM_JOB_ID", "")
        self.attempt: str = env.get("RM_ATTEMPT", "")
        index = env.get("RM_MAP_INDEX", "")
        self.map_index: int | None = int(index) if index else None
        self.logical_time: datetime | None = _time(env.get("RM_LOGICAL_TIME", ""))
        self.data_interval_start: datetime | None = _time(env.get("RM_DATA_INTERVAL_START", ""))
        self.data_interval_end: datetime | None = _time(env.get("RM_DATA_INTERVAL_END", ""))
        self.params: dict[str, Any] = _json(env.get("RM_PARAMS", ""))


def context() -> Context:
    """Run, workflow, task, map index (None when not mapped), times and parameters of this task.

    The data interval is None where the workflow has no schedule.
    """
    return Context()


def _time(text: str) -> "datetime | None":
    if not text:
        return None
    from datetime import datetime

    return datetime.fromisoformat(text)


def _json(text: str) -> "dict[str, Any]":
    if not text:
        return {}
    import json

    parsed: dict[str, Any] = json.loads(text)
    return parsed
