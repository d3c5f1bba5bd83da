"""What a message says: what happened, where, since when, and what the log says of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.urls import reverse

from apps.execution.queries import read_log
from apps.jobs.models import Placement
from apps.workflows.models import Approval, Run, Task
from rmctl.spec.quantities import format_duration

from .models import Delivery, Kind

SCHEMA = 1
# What of a log goes along.
LOG_BYTES = 16 * 1024
LOG_LINES = 10
LINE_MAX = 300
FAILED_MAX = 5
MORE_MAX = 20
WRONG = re.compile(r"Traceback \(most recent call last\)|\b\w*(Error|Exception)\b|\b(error|fatal|panic)\b", re.I)
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def payload_of(delivery: Delivery, members: Sequence[Delivery] = ()) -> dict[str, Any]:
    """The payload of a message, with those that it tells of as well; its schema stands in docs/notifications.md."""
    payload: dict[str, Any] = {
        "schema": SCHEMA,
        "id": str(delivery.key),
        "kind": delivery.kind,
        "at": _iso(delivery.at),
        "tenant": delivery.tenant.slug,
        "count": 1,
        "reason": delivery.reason,
        **_BUILDERS[Kind(delivery.kind)](delivery),
    }
    if members:
        _add(payload, delivery, members)
    return payload


def _add(payload: dict[str, Any], delivery: Delivery, members: Sequence[Delivery]) -> None:
    """Make it a digest: how many there are of what, and the first of them by name."""
    runs = {member.facts["run"] for member in members[:MORE_MAX] if "run" in member.facts}
    names = dict(Run.objects.filter(pk__in=runs).values_list("pk", "workflow__name"))
    payload["count"] = len(members) + 1
    payload["more"] = [
        {"id": str(member.key), "kind": member.kind, "at": _iso(member.at), "subject": short_subject(member, names)}
        for member in members[:MORE_MAX]
    ]
    counts = Counter(member.kind for member in (delivery, *members))
    payload["counts"] = dict(counts)
    said = ", ".join(f"{count} {KIND_WORDS[Kind(kind)]}" for kind, count in counts.most_common())
    payload["subject"] = f"{payload['subject']} (and {len(members)} more)"
    payload["text"] += f"\nTogether with {len(members)} more: {said}."


def short_subject(delivery: Delivery, names: Mapping[int, str]) -> str:
    """What a message is about, by the name of its run's workflow: where its payload is not made, or only counted."""
    run = delivery.facts.get("run")
    where = f"{names.get(run, 'run')}: " if run else ""
    task = f"task {delivery.facts['task']} of " if "task" in delivery.facts else ""
    of = f"{task}run {run}" if run else str(delivery.facts.get("of", ""))
    return f"{where}{of} {_SHORT[Kind(delivery.kind)]}".strip()


def _test(delivery: Delivery) -> dict[str, Any]:
    name = delivery.destination.name
    text = f"{delivery.facts.get('by', 'Somebody')} sent this to try the destination {name}. Nothing has happened."
    return {"subject": f"Test of {name}", "text": text, "url": _url("tenant", delivery.tenant.slug)}


def _run(delivery: Delivery) -> dict[str, Any]:
    run, found = _found_run(delivery)
    if run is None:
        return found
    said = {"run.failed": "failed", "run.succeeded": "succeeded", "run.deadline": "has missed its deadline"}
    verb = said[delivery.kind]
    task = str(delivery.facts.get("task", ""))
    of = f"task {task} of run {run.pk}" if task else f"run {run.pk}"
    found["subject"] = f"{run.workflow.name}: {of} {verb}"
    lines = [f"{of[0].upper()}{of[1:]} of {run.workflow.name} (tenant {delivery.tenant.slug}) {verb}{_lasted(run)}."]
    if delivery.reason:
        lines.append(delivery.reason)
    if delivery.kind == Kind.RUN_DEADLINE:
        found["deadline"] = {name: delivery.facts.get(name, "") for name in ("due", "since", "after")}
        lines.append(f"It is {run.state}; it is not stopped.")
    elif delivery.kind == Kind.RUN_FAILED:
        failed = list(Task.objects.filter(run=run, state="failed", index=-1).order_by("ended_at")[: FAILED_MAX + 1])
        found["failed_tasks"] = [{"name": item.name, "detail": item.detail} for item in failed[:FAILED_MAX]]
        lines += [f"Failed: {item.name}. {item.detail}".rstrip() for item in failed[:FAILED_MAX]]
        if len(failed) > FAILED_MAX:
            lines.append("Further tasks failed as well.")
        job = next((item.job_id for item in failed if item.job_id), None)
        found["log"] = log_of(job) if job else ""
    return {**found, "text": "\n".join(lines)}


def _task(delivery: Delivery) -> dict[str, Any]:
    run, found = _found_run(delivery)
    if run is None:
        return found
    task, job = str(delivery.facts.get("task", "")), delivery.facts.get("job")
    verb = "failed" if delivery.kind == Kind.TASK_FAILED else "is tried again"
    found["subject"] = f"{run.workflow.name}: task {task} of run {run.pk} {verb}"
    found["url"] = f"{found['url']}?task={task}"
    found["task"] = {"name": task, "job": job, "retry": delivery.facts.get("retry")}
    text = f"Task {task} of run {run.pk} of {run.workflow.name} (tenant {delivery.tenant.slug}) {verb}."
    return {**found, "text": f"{text}\n{delivery.reason}".rstrip(), "log": log_of(job) if job else ""}


def _approval(delivery: Delivery) -> dict[str, Any]:
    run, found = _found_run(delivery)
    asked = Approval.objects.filter(pk=delivery.subject_id).first()
    if run is None or asked is None:
        return found
    found["subject"] = f"{run.workflow.name}: {asked.subject}"
    who = ", ".join([*asked.users, *(f"every {role}" for role in asked.roles)])
    text = (
        f"Run {run.pk} of {run.workflow.name} (tenant {delivery.tenant.slug}) waits for an answer until "
        f"{asked.expires_at:%Y-%m-%d %H:%M} UTC: {' | '.join(asked.options)}.\nAsked: {who}."
    )
    found["approval"] = {
        "id": asked.pk, "subject": asked.subject, "options": asked.options, "expires_at": _iso(asked.expires_at),
    }  # fmt: skip
    return {**found, "text": f"{text}\n{asked.text}".rstrip(), "url": _url("approval", asked.pk)}


def _budget(delivery: Delivery) -> dict[str, Any]:
    facts = delivery.facts
    names = ("of", "measure", "period", "amount", "used", "percent", "hard")
    period = f" of this {facts['period']}" if facts.get("period") in ("day", "week", "month") else ""
    stop = "Nothing more starts when it is used up." if facts.get("hard") else "It only warns."
    return {
        "subject": f"{facts.get('of')}: {facts.get('percent')} % of a budget used",
        "text": f"{facts.get('used')} of {facts.get('amount')} ({facts.get('measure')}){period} are used by "
        f"{facts.get('of')}. {stop}",
        "url": _url("tenant", delivery.tenant.slug),
        "budget": {"id": delivery.subject_id, **{name: facts.get(name) for name in names}},
    }


def _found_run(delivery: Delivery) -> tuple[Run | None, dict[str, Any]]:
    """The run that it is about, and the fields that say so; without it, what is left to be said."""
    pk = delivery.facts.get("run")
    run = Run.objects.select_related("workflow").filter(pk=pk).first()
    if run is None:
        text = f"{delivery.reason}\nThe run is no longer there.".lstrip()
        return None, {
            "subject": f"{delivery.kind}: run {pk}", "text": text, "url": _url("tenant", delivery.tenant.slug)
        }  # fmt: skip
    return run, {
        "url": _url("run", run.pk),
        "workflow": {"id": run.workflow_id, "name": run.workflow.name},
        "run": {
            "id": run.pk, "state": run.state, "trigger": run.trigger, "logical_time": _iso(run.logical_time),
            "started_at": _iso(run.started_at), "ended_at": _iso(run.ended_at),
        },
    }  # fmt: skip


def _lasted(run: Run) -> str:
    if run.started_at is None or run.ended_at is None:
        return f", running since {run.started_at:%Y-%m-%d %H:%M} UTC" if run.started_at else ""
    return f" after {format_duration(round((run.ended_at - run.started_at).total_seconds()))}"


def log_of(job_id: int) -> str:
    """What the end of a job's log says of what went wrong: from the first line that looks like an error, else the last
    lines. Empty where there is none."""
    rows = Placement.objects.filter(attempt__job=job_id, log_size__gt=0).order_by("-attempt__token", "group", "rank")
    pk = rows.values_list("pk", flat=True).first()
    if pk is None:
        return ""
    try:
        data = read_log(pk, -LOG_BYTES, LOG_BYTES).data
    except OSError:
        return ""  # It was removed; the message is told without it.
    text = CONTROL.sub("", ANSI.sub("", data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")))
    lines = [line.rstrip()[:LINE_MAX] for line in text.splitlines() if line.strip()]
    first = next((place for place, line in enumerate(lines) if WRONG.search(line)), None)
    if first is None or len(lines) - first <= LOG_LINES:
        return "\n".join(lines[-LOG_LINES:])
    # The head of the error and the end of the log, where Python names the exception.
    half = LOG_LINES // 2
    return "\n".join([*lines[first : first + half], "…", *lines[-half:]])


def _url(name: str, *arguments: Any) -> str:
    return f"{settings.PORTAL_URL}{reverse(f'console:{name}', args=arguments)}"


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


_BUILDERS = {
    Kind.TEST: _test,
    Kind.RUN_FAILED: _run,
    Kind.RUN_SUCCEEDED: _run,
    Kind.RUN_DEADLINE: _run,
    Kind.TASK_FAILED: _task,
    Kind.TASK_RETRIED: _task,
    Kind.APPROVAL_OPENED: _approval,
    Kind.BUDGET_WARNED: _budget,
}
_SHORT = {
    Kind.TEST: "test",
    Kind.RUN_FAILED: "failed",
    Kind.RUN_SUCCEEDED: "succeeded",
    Kind.RUN_DEADLINE: "has missed its deadline",
    Kind.TASK_FAILED: "failed",
    Kind.TASK_RETRIED: "is tried again",
    Kind.APPROVAL_OPENED: "waits for an answer",
    Kind.BUDGET_WARNED: "is nearly used up",
}
KIND_WORDS = {
    Kind.TEST: "test",
    Kind.RUN_FAILED: "run failed",
    Kind.RUN_SUCCEEDED: "run succeeded",
    Kind.RUN_DEADLINE: "deadline missed",
    Kind.TASK_FAILED: "task failed",
    Kind.TASK_RETRIED: "task tried again",
    Kind.APPROVAL_OPENED: "question asked",
    Kind.BUDGET_WARNED: "budget warning",
}
