"""What a panel shows of one task of a run: its instances, or its job with inputs, command, attempts, log and result."""

from typing import Any

from django.core.files.storage import storages
from django.db.models import Count
from django.http import HttpRequest

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.execution.models import Artifact
from apps.execution.queries import job_artifacts
from apps.jobs.models import Job, Placement
from apps.workflows import policies
from apps.workflows.models import Run, Task, TaskTry
from apps.workflows.slot_queries import say_why
from apps.workflows.states import MARKS, TASK_MARKS, TaskState

from ..pages import choice, number, numbered_page
from .approvals import questions_of
from .caching import cache_context

INSTANCES = 50
ATTEMPTS = 10
TRIES = 50
# The artifact in which rmctl.render leaves what it rendered, and how much of it is shown.
RENDERED = "rendered-command.txt"
RENDERED_BYTES = 16 * 1024


def task_context(actor: Actor, run: Run, name: str, request: HttpRequest) -> dict[str, Any]:
    """The context of `console/runs/_task.html`. `?index=` is an instance of a mapped task. Raises NotFound."""
    rows = Task.objects.filter(run=run, name=name).select_related("job").order_by("index")
    index = number(request, "index")
    task = rows.filter(index=-1 if index is None else index).first()
    if task is None:
        what = f"task {name}" if index is None else f"instance {index} of task {name}"
        raise NotFound(f"Run {run.pk} has no {what}.")
    say_why([task])
    context: dict[str, Any] = {"run": run, "task": task, "index": index, "questions": questions_of(actor, run, name)}
    context["tries"] = _tries(run, name, index)
    context["may_clear"] = policies.runs.allows(actor, "clear", run)
    may_mark = policies.runs.allows(actor, "mark", run)
    context["marks"] = [state for state in MARKS if may_mark and (task.state, state) in TASK_MARKS]
    if task.width is not None:  # Each of its instances has the cache for itself.
        return context | _instances(request, run, task)
    context |= cache_context(actor, run, task)
    return context | (_job(actor, request, task.job) if task.job is not None else {})


def _tries(run: Run, name: str, index: int | None) -> list[TaskTry]:
    """How the task, or one instance, ended before it was cleared or marked, the latest first."""
    rows = TaskTry.objects.filter(run=run, name=name, **({} if index is None else {"index": index}))
    rows = rows.select_related("version").defer("version__definition")
    return list(rows.order_by("-closed_at", "index")[:TRIES])


def _instances(request: HttpRequest, run: Run, task: Task) -> dict[str, Any]:
    """One page of a mapped task's instances, in one state if asked, and how many there are in each."""
    rows = Task.objects.filter(run=run, name=task.name, index__gte=0)
    counts = dict(rows.order_by().values_list("state").annotate(count=Count("pk")))
    made = sum(counts.values())
    state = choice(request, "state", TaskState.values)
    if state:
        rows = rows.filter(state=state)
    shown = numbered_page(request, rows, "index", size=INSTANCES)
    say_why(shown.rows)
    states = [(value, value.replace("_", " "), counts[value]) for value in TaskState.values if value in counts]
    return {
        "instances": shown,
        "instance_states": states,
        "unmade": (task.width or 0) - made,
        "state": state,
    }


def _job(actor: Actor, request: HttpRequest, job: Job) -> dict[str, Any]:
    """The task's job with its attempts; the log shown is that of `?attempt=`, else of the newest."""
    placements = list(
        Placement.objects.filter(attempt__job=job)
        .select_related("node", "attempt")
        .order_by("-attempt__token", "group", "rank")[:ATTEMPTS]
    )
    asked = number(request, "attempt")
    found = list(job_artifacts(actor, job.pk))
    return {
        "job": job,
        "attempts": placements,
        "shown": next((row for row in placements if asked in (None, row.attempt.token)), None),
        "artifacts": found,
        "rendered": _rendered(found),
        "group": job.spec["groups"][0],
    }


def _rendered(artifacts: list[Artifact]) -> str:
    """The command of a task with templates as its newest attempt rendered it; empty where there is none."""
    newest = next((found for found in artifacts if found.name == RENDERED), None)
    if newest is None:
        return ""
    with storages["artifacts"].open(newest.path) as stream:
        return str(stream.read(RENDERED_BYTES).decode(errors="replace"))
