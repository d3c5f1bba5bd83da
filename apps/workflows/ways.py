"""Which tasks a branch, a condition or a rejected question leaves out, from what its task returned."""

from typing import Any

from engine.branches import left_out_by_branch, left_out_by_condition
from rmctl.spec import ArgumentError, CompiledTask
from rmctl.spec.errors import describe, did_you_mean
from rmctl.spec.kinds import Approval

from .plans import Plan

NAMES_SHOWN = 10


def left_out(plan: Plan, task: CompiledTask, result: Any) -> list[str]:
    """The tasks that are skipped after `task` returned this. Raises ArgumentError when a branch returned something
    that does not say where to go on."""
    if isinstance(task.options, Approval):
        return left_out_by_condition(plan.graph, task.id, direct=False) if rejection(task.options, result) else []
    if task.decides == "short_circuit":
        return [] if result else left_out_by_condition(plan.graph, task.id, direct=task.direct)
    return left_out_by_branch(plan.graph, task.id, _chosen(plan, task.id, result))


def rejection(options: Approval, result: Any) -> str:
    """The answer that lets nothing behind a question run, if it was given; of a mapped one the first such answer."""
    answers = result if isinstance(result, list) else [result]
    given = (answer["option"] for answer in answers if isinstance(answer, dict))
    return next((option for option in given if option in options.reject), "")


def why_left_out(task: CompiledTask, result: Any) -> str:
    """Why a task was skipped that this one has left out."""
    if isinstance(task.options, Approval):
        return f"{task.id}: {rejection(task.options, result)}."
    return f"{task.id} did not choose it." if task.decides == "branch" else f"{task.id} found that it is not to go on."


def _chosen(plan: Plan, name: str, result: Any) -> set[str]:
    names = [] if result is None else result if isinstance(result, list) else [result]
    below = plan.graph.downstream[name]
    chosen: set[str] = set()
    for item in names:
        if not isinstance(item, str):
            raise ArgumentError(
                f"{name} is a branch and returned {describe(item)}: return the id of a task directly behind it, a list "
                "of such ids, or nothing to skip them all."
            )
        members = [task for task in plan.groups.get(item, [item]) if task in below]
        if not members:
            behind = sorted({*below, *(group for group, tasks in plan.groups.items() if {*tasks} & {*below})})
            known = "is not directly behind it" if item in plan.tasks or item in plan.groups else "does not exist"
            there = ", ".join(behind[:NAMES_SHOWN]) + (" …" if len(behind) > NAMES_SHOWN else "")
            raise ArgumentError(
                f"{name} is a branch and returned {item[:200]}, which {known}.{did_you_mean(item[:200], behind)} "
                f"It can go on with {there or 'nothing: no task is behind it'}."
            )
        chosen.update(members)
    return chosen
