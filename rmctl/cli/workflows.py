"""`rmctl push` and `trigger`."""

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmctl.cli.failures import FAILED, UsageError
from rmctl.cli.output import (
    STYLES,
    clean,
    interactive,
    print_json,
    span,
    state,
    stderr,
    stdout,
    table,
    took,
)
from rmctl.cli.session import client, pairs, tenant_of
from rmctl.client import ApiError, Client
from rmctl.sdk.compile import CompiledWorkflow, compile_file

LOOK_SECONDS = 0.3
ENDED = ("succeeded", "failed", "cancelled")
TAIL_LINES = 15
TAIL_BYTES = 8192


def push(file: Path, tenant: str | None, check: bool, as_json: bool) -> None:
    """Compile, upload, push; what is pushed twice stays one version."""
    compiled = compile_file(file)
    if check:
        _checked(file, compiled, as_json)
        return
    answers = []
    with client() as asked:
        tenant = tenant_of(asked, tenant)
        for workflow in compiled:
            if workflow.bundle is not None:
                asked.upload_bundle(workflow.bundle, tenant)
            row, made = asked.push(workflow.definition, tenant)
            answers.append({**row, "changed": made})
            if not as_json:
                _pushed(asked, workflow, row, made)
    if as_json:
        print_json(answers)


def _pushed(asked: Client, workflow: CompiledWorkflow, row: dict[str, Any], made: bool) -> None:
    version = row.get("version")
    number = version.get("number") if isinstance(version, dict) else version
    which = f"version {number}" if number is not None else workflow.spec.digest()[:12]
    files = f", {len(workflow.files)} files" if workflow.files else ""
    said = f"{which} pushed ({len(workflow.spec.tasks)} tasks{files})" if made else f"unchanged, {which}"
    link = f": {asked.url}/workflows/{row['id']}/" if "id" in row else ""
    stdout().print(f"{workflow.spec.name}: {said}{link}")


def _checked(file: Path, compiled: list[CompiledWorkflow], as_json: bool) -> None:
    if as_json:
        print_json(
            [{"definition": w.definition, "digest": w.spec.digest(), "files": w.files} for w in compiled]
        )
        return
    for workflow in compiled:
        digest = workflow.spec.digest()[:12]
        stdout().print(
            f"{file.name}: {workflow.spec.name} is fine ({len(workflow.spec.tasks)} tasks, {digest})"
        )


def trigger(
    name: str, given: list[str] | None, note: str, wait: bool, tenant: str | None, as_json: bool
) -> None:
    """Start a run, and watch it to its end when asked to."""
    params = {key: _value(text) for key, text in pairs(given, "--param").items()}
    with client() as asked:
        workflow = asked.workflow(name, tenant)
        run = asked.trigger(int(workflow["id"]), params, note)
        link = f"{asked.url}/runs/{run['id']}/"
        if not wait:
            if as_json:
                print_json(run)
            else:
                stdout().print(f"run {run['id']} of {clean(workflow['name'])} started: {link}")
            return
        if not as_json:
            stdout().print(f"run {run['id']} of {clean(workflow['name'])}: {link}")
        run, tasks = _watch(asked, int(run["id"]), quiet=as_json)
        if as_json:
            print_json({**run, "tasks": tasks})
        else:
            _summary(asked, run, tasks)
    sys.exit(0 if run["state"] == "succeeded" else FAILED)


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text: `-p n=5` is a number, `-p name=x` is text."""
    try:
        return json.loads(text)
    except ValueError:
        if re.match(r'[\[{"]', text):
            raise UsageError(
                f"--param: {text!r} looks like JSON but is not; quote it for your shell."
            ) from None
        return text


def _watch(asked: Client, run_id: int, *, quiet: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(run, tasks) at the end, showing progress: a live table for a person, a line per change for a pipe."""
    if quiet or not interactive():
        seen: dict[tuple[str, int], str] = {}
        while True:
            run, tasks = asked.run(run_id), asked.run_tasks(run_id)
            if not quiet:
                _print_changes(tasks, seen)
            if run["state"] in ENDED:
                return run, tasks
            time.sleep(LOOK_SECONDS)
    with Live(console=stdout(), auto_refresh=False, transient=False) as live:
        while True:
            # The run is read first: once it has ended, the tasks read after it are final too.
            run, tasks = asked.run(run_id), asked.run_tasks(run_id)
            live.update(_progress(run, tasks), refresh=True)
            if run["state"] in ENDED:
                return run, tasks
            time.sleep(LOOK_SECONDS)


def _print_changes(tasks: list[dict[str, Any]], seen: dict[tuple[str, int], str]) -> None:
    for task in tasks:
        key = (task["name"], int(task.get("index", -1)))
        if seen.get(key) != task["state"] and (key in seen or task["state"] != "waiting"):
            duration = took(task) if task["state"] in ("succeeded", "failed") else ""
            stdout().print(
                Text(f"{_label(task):<30} ").append(state(task["state"])).append(f" {duration}".rstrip())
            )
        seen[key] = task["state"]


def _label(task: dict[str, Any]) -> str:
    index = int(task.get("index", -1))
    return clean(task["name"] if index < 0 else f"{task['name']}[{index}]")


def _progress(run: dict[str, Any], tasks: list[dict[str, Any]]) -> Table:
    """A row per task of the definition; instances of a mapped one are counted in it."""
    instances: dict[str, Counter[str]] = {}
    for task in tasks:
        if int(task.get("index", -1)) >= 0:
            instances.setdefault(task["name"], Counter())[task["state"]] += 1
    rows: list[tuple[object, ...]] = []
    for task in tasks:
        if int(task.get("index", -1)) >= 0:
            continue
        counts = instances.get(task["name"]) or Counter({task["state"]: 1})
        rows.append((clean(task["name"]), state(task["state"]), _blocks(counts), took(task)))
    done = sum(1 for task in tasks if task["state"] in (*ENDED, "skipped", "upstream_failed"))
    rows.append(("", "", "", ""))
    rows.append((Text("run", style="bold"), state(run["state"]), f"{done} of {len(tasks)} tasks", took(run)))
    return table(("task", "state", "progress", "time"), rows)


def _blocks(counts: Counter[str], width: int = 24) -> Text:
    """A bar whose parts have the colours of the states."""
    total = sum(counts.values())
    made = Text()
    if total <= width:
        for name, count in sorted(counts.items()):
            made.append("■" * count, style=STYLES.get(name, ""))
    else:
        for name, count in sorted(counts.items()):
            made.append("■" * max(1, round(count / total * width)), style=STYLES.get(name, ""))
    return made.append(f" {counts['succeeded']}/{total}") if total > 1 else made


def _summary(asked: Client, run: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
    """The verdict; for a failed run the failed tasks with the end of their logs."""
    stdout().print(
        Text(f"run {run['id']} ").append(state(run["state"])).append(f" in {took(run) or span(0)}")
    )
    failed = [
        task for task in tasks if task["state"] == "failed" and (task.get("job") or not task.get("width"))
    ]
    for task in failed[:3]:
        stderr().print(f"{_label(task)}: {clean(task.get('detail') or 'failed')}", style="red")
        job = task.get("job")
        job_id = job.get("id") if isinstance(job, dict) else job
        if job_id:
            _tail(asked, int(job_id))
    if len(failed) > 3:
        stderr().print(f"and {len(failed) - 3} more failed tasks")


def _tail(asked: Client, job_id: int) -> None:
    try:
        data, _ = asked.log(job_id, offset=-TAIL_BYTES)
    except ApiError:
        return
    for line in data.decode(errors="replace").splitlines()[-TAIL_LINES:]:
        stderr().print(f"  | {clean(line)}", style="dim", soft_wrap=True)
