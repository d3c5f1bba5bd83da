"""`rmctl trigger` and `next`."""

import json
import re
import sys
import time
from collections import Counter
from contextlib import nullcontext
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmctl.cli.failures import FAILED, UsageError
from rmctl.cli.output import (
    STYLES,
    clean,
    interactive,
    named,
    print_json,
    print_table,
    span,
    state,
    stderr,
    stdout,
    table,
    took,
)
from rmctl.cli.session import client, pairs, tenant_of
from rmctl.client import ApiError, Client
from rmctl.spec.schedule import CONTINUOUS

LOOK_SECONDS = 0.3
ENDED = ("succeeded", "failed", "cancelled")
TAIL_LINES = 15
TAIL_BYTES = 8192
SHOWN_FAILURES = 4


def upcoming(name: str, count: int, tenant: str | None, as_json: bool) -> None:
    """When the next runs of a workflow come."""
    with client() as asked:
        workflow = asked.workflow(name, tenant_of(tenant))
        found = asked.upcoming(int(workflow["id"]), count)
    if as_json:
        print_json(found)
        return
    zone = ZoneInfo(found["timezone"])
    if not found["runs"]:
        why = "runs follow each other" if found["schedule"] == CONTINUOUS else "no run is to come by a timetable"
        stdout().print(f"{clean(workflow['name'])}: {why}")
        return
    rows = [tuple(_local(run[name], zone) for name in ("run_at", "logical_time")) for run in found["runs"]]
    print_table(("run at", "logical time"), rows)
    if found["paused"]:
        stderr().print("The workflow is paused: none of these comes until it is resumed.", style="yellow")


def _local(text: str, zone: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(text).astimezone(zone):%a %Y-%m-%d %H:%M:%S %Z}"


def trigger(
    name: str,
    given: list[str] | None,
    note: str,
    wait: bool,
    tenant: str | None,
    as_json: bool,
    *,
    no_cache: bool = False,
) -> None:
    """Start a run, and watch it to its end when asked to."""
    params = {key: json_or_text(text) for key, text in pairs(given, "--param").items()}
    with client() as asked:
        workflow = asked.workflow(name, tenant_of(tenant))
        run = asked.trigger(int(workflow["id"]), params, note, no_cache=no_cache)
        link = f"{asked.url}/runs/{run['id']}/"
        if not wait:
            if as_json:
                print_json(run)
            else:
                stdout().print(f"run {run['id']} of {clean(workflow['name'])} started: {link}")
            return
        if not as_json:
            stdout().print(f"run {run['id']} of {clean(workflow['name'])}: {link}")
        run = _watch(asked, int(run["id"]), quiet=as_json)
        if as_json:
            print_json({**run, "tasks": asked.run_tasks(int(run["id"]))})
        else:
            _summary(asked, run)
    sys.exit(0 if run["state"] == "succeeded" else FAILED)


def json_or_text(text: str) -> Any:
    """JSON where it is JSON, else the text: `-p n=5` is a number, `-p name=x` is text."""
    try:
        return json.loads(text)
    except ValueError:
        if re.match(r'[\[{"]', text):
            raise UsageError(
                f"--param: {text!r} looks like JSON but is not; quote it for your shell."
            ) from None
        return text


def _watch(asked: Client, run_id: int, *, quiet: bool) -> dict[str, Any]:
    """The run at its end. Shows progress: a live table for a person, a line per change for a pipe."""
    seen: dict[str, str] = {}
    live = Live(console=stdout(), auto_refresh=False) if interactive() and not quiet else None
    with live or nullcontext():
        while True:
            # The run is read first: once it has ended, the graph read after it is final too.
            run = asked.run(run_id)
            if live is not None:
                live.update(_progress(run, asked.run_graph(run_id)), refresh=True)
            elif not quiet:
                _print_changes(asked.run_graph(run_id), seen)
            if run["state"] in ENDED:
                return run
            time.sleep(LOOK_SECONDS)


def _print_changes(nodes: list[dict[str, Any]], seen: dict[str, str]) -> None:
    for node in nodes:
        before, now = seen.get(node["id"], "waiting"), node["state"]
        seen[node["id"]] = now
        if now != before:
            counts = Counter(node.get("counts") or {})
            instances = f"{counts['succeeded']}/{node['width']}" if node.get("width") else ""
            line = Text(f"{clean(node['id']):<30} ").append(state(now))
            stdout().print(line.append(f"  {took(node)}  {instances}".rstrip()))


def _progress(run: dict[str, Any], nodes: list[dict[str, Any]]) -> Table:
    """A row per task; instances of a mapped one are counted in it."""
    rows: list[tuple[object, ...]] = []
    for node in nodes:
        counts = Counter(node.get("counts") or {node["state"]: 1})
        rows.append((node["id"], state(node["state"]), _blocks(counts), took(node)))
    rows.append(("", "", "", ""))
    done = f"{run['done']} of {run['total']} tasks"
    rows.append((Text("run", style="bold"), state(run["state"]), done, took(run)))
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


def _summary(asked: Client, run: dict[str, Any]) -> None:
    """The verdict; for a failed run the first failed tasks with the end of their logs."""
    stdout().print(
        Text(f"run {run['id']} ").append(state(run["state"])).append(f" in {took(run) or span(0)}")
    )
    if run["state"] != "failed":
        return
    for task in asked.run_tasks(int(run["id"]), state="failed", limit=SHOWN_FAILURES):
        stderr().print(f"{clean(named(task))}: {clean(task.get('detail') or 'failed')}", style="red")
        if task.get("job"):
            _tail(asked, int(task["job"]))


def _tail(asked: Client, job_id: int) -> None:
    try:
        data, _ = asked.log(job_id, offset=-TAIL_BYTES)
    except ApiError:
        return
    for line in data.decode(errors="replace").splitlines()[-TAIL_LINES:]:
        stderr().print(f"  | {clean(line)}", style="dim", soft_wrap=True)
