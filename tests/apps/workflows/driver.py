"""Runs workflows without nodes: jobs are ended by hand, and the advance loop's pass is called by hand."""

from collections.abc import Callable, Mapping
from typing import Any

from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.jobs.models import Job
from apps.tenants.models import Tenant
from apps.workflows import commands
from apps.workflows.apply import Applied
from apps.workflows.giving import apply
from apps.workflows.models import Run, Task, Wait
from apps.workflows.observe import add_due, observe

Outcome = tuple[str, Any]  # The state that a job ends in, and its result.


def bash(name: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    """A bash task."""
    return {"id": name, "kind": "bash", "script": "true", "upstream": list(upstream), **fields}


def empty(name: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    """An empty task."""
    return {"id": name, "kind": "empty", "upstream": list(upstream), **fields}


def definition(*tasks: dict[str, Any], name: str = "etl", **fields: Any) -> dict[str, Any]:
    """A definition out of tasks."""
    return {"schema": 1, "name": name, "tasks": list(tasks), **fields}


def start(tenant: Tenant, *tasks: dict[str, Any], given: Mapping[str, Any] | None = None, **fields: Any) -> Run:
    """Push, trigger with the parameters `given`, and start the run."""
    pushed = commands.push(actor=SYSTEM, tenant=tenant, definition=definition(*tasks, **fields))
    run = commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk, params=given)
    step()
    return run


def step(*, review: bool = False) -> Applied:
    """One pass of the advance loop that looks at everything in flight."""
    return apply(observe(search=True, review=review), timezone.now())


def look(*, review: bool = False) -> Applied:
    """The same, told of every wait that is due."""
    observed = observe(search=True, review=review)
    due = Wait.objects.filter(due_at__lte=timezone.now()).values_list("task_id", flat=True)
    if due:
        add_due(observed, list(due))
    return apply(observed, timezone.now())


def end(run: Run, name: str, state: str = "succeeded", result: Any = None, index: int = -1) -> None:
    """End the job of a task as an agent's report would."""
    job = Job.objects.get(task__run=run, task__name=name, task__index=index)
    end_job(job, state, result)


def end_job(job: Job, state: str, result: Any = None) -> None:
    """End a job."""
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(
        state=state,
        result=result,
        reason="",
        detail="",
        ended_at=now,
        started_at=now,
        exit_code=int(state != "succeeded"),
    )


def begin(run: Run, name: str, index: int = -1) -> None:
    """Let the job of a task run."""
    rows = Job.objects.filter(task__run=run, task__name=name, task__index=index)
    rows.update(state="running", reason="", started_at=timezone.now())


def states(run: Run) -> dict[str, str]:
    """State by task; instances as `name[0]`."""
    return {str(task): task.state for task in Task.objects.filter(run=run)}


def finish(run: Run, outcome: Callable[[Task], Outcome] = lambda task: ("succeeded", None), passes: int = 200) -> str:
    """End every job as `outcome` says, until the run has ended; returns its state."""
    for _ in range(passes):
        run.refresh_from_db()
        if run.ended_at is not None:
            return run.state
        tasks = Task.objects.filter(run=run, state="queued", job__isnull=False).select_related("job")
        for task in tasks:
            end_job(task.job, *outcome(task))
        step()
    raise AssertionError(f"the run did not end: {states(run)}")
