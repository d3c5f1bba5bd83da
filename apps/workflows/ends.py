"""How tasks end, in words for people, by what became of their jobs."""

from typing import Any

from rmctl.runner import FAIL_STATUS, RESULT_STATUS, SKIP_STATUS
from rmctl.spec import CompiledTask
from rmctl.spec.templates import STATUS as TEMPLATE_STATUS

from .observe import News
from .states import TaskState

_ENDS = {"succeeded": TaskState.SUCCEEDED, "failed": TaskState.FAILED, "cancelled": TaskState.CANCELLED}


def end_of(item: News, task: CompiledTask) -> tuple[str, str]:
    """The state that a task takes from its job, with a detail for people."""
    if item.job_state is None:
        return TaskState.FAILED, "Its job was deleted before it had ended."
    state = _ENDS[item.job_state]
    if state == TaskState.SUCCEEDED:
        return state, ""
    if state == TaskState.CANCELLED:
        return state, "Its job was cancelled."
    if item.exit_code == TEMPLATE_STATUS and task.template is not None:
        return state, "A template of it could not be rendered; its log says which and why."
    if item.exit_code == RESULT_STATUS and task.kind == "python":
        return state, (
            "What it returned cannot be kept; its log says why. A result is JSON of at most 256 KiB: write large data "
            "to a file with rmctl.artifact and return its name."
        )
    if item.exit_code == SKIP_STATUS:
        return TaskState.SKIPPED, f"It skipped itself: exit status {SKIP_STATUS}."
    if item.exit_code == FAIL_STATUS:
        return state, f"It said that trying again is of no use: exit status {FAIL_STATUS}."
    if item.detail:
        return state, item.detail
    return (
        state,
        f"Its job exited with status {item.exit_code}." if item.exit_code is not None else "Its job failed.",
    )


def of_sensor(result: Any, *, mapped: bool) -> Any:
    """What the last poke said besides being done."""
    if mapped and isinstance(result, list):
        return [of_sensor(item, mapped=False) for item in result]
    return result.get("value") if isinstance(result, dict) else result
