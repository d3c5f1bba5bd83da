"""`rmctl runs`: show, clear, mark, note and tries."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, clean, named, print_json, print_table, span, state, stdout, took
from rmctl.cli.session import client

SHOWN = 40
DIFFERENCES = (
    ("added", "new in the newest version, will run"),
    ("removed", "not in the newest version, kept among the tries only"),
    ("changed", "defined otherwise in the newest version"),
    ("remapped", "cleared because mapped in only one of both versions"),
)


def show(run_id: int, as_json: bool) -> None:
    """A run with its tasks and its longest path."""
    with client() as asked:
        run, tasks, path = asked.run(run_id), asked.run_graph(run_id), asked.run_path(run_id)
    if as_json:
        print_json({**run, "tasks": tasks, "path": path})
        return
    title = Text(f"run {run_id} of {clean(run['workflow_name'])}, version {run['version']}: ")
    stdout().print(title.append(state(run["state"])).append(f"  {took(run)}".rstrip()))
    if run["note"]:
        stdout().print(f"note: {clean(run['note'])}")
    rows = [(row["id"], state(row["state"]), _progress(row), took(row), row["job"], row["detail"]) for row in tasks]
    print_table(("task", "state", "instances", "time", "job", "detail"), rows, right=("instances", "job"))
    if path["tasks"]:
        stdout().print(_path(path), soft_wrap=True)


def _progress(node: Mapping[str, Any]) -> str:
    return f"{(node['counts'] or {}).get('succeeded', 0)}/{node['width']}" if node.get("width") else ""


def _path(path: Mapping[str, Any]) -> str:
    """The longest path in one line."""
    line = f"longest path: {' → '.join(clean(name) for name in path['tasks'])}, {span(path['spent_seconds'])}"
    if path["ended"]:
        return f"{line} of {span(path['total_seconds'])}, {path['share']} %"
    left = path["left_seconds"]
    to_go = "no earlier run says how long it takes" if left is None else f"about {span(left)} to go by its latest runs"
    return f"{line} so far, {to_go}"


def instances(run_id: int, task: str, wanted: str | None, limit: int, as_json: bool) -> None:
    """A task, or the instances of a mapped one with what they are called."""
    with client() as asked:
        rows = asked.run_tasks(run_id, name=task, state=wanted, limit=limit)
        if not rows and not asked.run_tasks(run_id, name=task, limit=1):
            raise UsageError(f"Run {run_id} has no task {task}; rmctl runs show {run_id} lists them.")
    if as_json:
        print_json(rows)
        return
    cells = [(named(row), state(row["state"]), took(row), row["job"], row["detail"]) for row in rows]
    print_table(("task", "state", "time", "job", "detail"), cells, right=("job",), empty="none in this state")


def clear(run_id: int, body: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """Clear, or say what would be."""
    with client() as asked:
        told = asked.clear_run(run_id, body, dry_run=dry_run)
    if as_json:
        print_json(told)
        return
    rows = [(named(row), state(row["state"]), row["job"]) for row in told["tasks"][:SHOWN]]
    print_table(("task", "was", "job"), rows)
    if told["count"] > SHOWN:
        stdout().print(f"and {told['count'] - SHOWN} more")
    for key, meaning in DIFFERENCES:
        if told[key]:
            stdout().print(f"{meaning}: {clean(', '.join(told[key]))}")
    verb = "would be cleared" if dry_run else "cleared"
    stopped = f", {told['in_flight']} of them stopped first" if told["in_flight"] else ""
    more = f", and {told['to_come']} instances run that were never made" if told["to_come"] else ""
    stdout().print(f"run {run_id}: {told['count']} {verb}{stopped}{more}, on version {told['version']}")
    stdout().print(cost(told["estimate"]))


def cost(estimate: Mapping[str, Any]) -> str:
    """An estimate in one line."""
    if not estimate["task_hours"]:
        return "what it takes is not known: nothing of it has run yet"
    hours = (span(estimate[name] * 3600) for name in ("task_hours", "cpu_hours"))
    text = "about {} of tasks, {} of a core".format(*hours)
    if estimate["money"] is not None:
        text += f", {estimate['money']:.2f} by the nodes' prices"
    if estimate["unknown"]:
        text += f"; without a history: {clean(', '.join(estimate['unknown'][:SHOWN]))}"
    return text


def mark(run_id: int, to: str, tasks: list[str], reason: str, as_json: bool) -> None:
    """Mark tasks."""
    with client() as asked:
        run = asked.mark_tasks(run_id, tasks, to, reason)
    if as_json:
        print_json(run)
    else:
        stdout().print(f"run {run_id}: {clean(', '.join(tasks))} marked {clean(to)}; the run is {clean(run['state'])}")


def note(run_id: int, text: str, as_json: bool) -> None:
    """Write a note."""
    with client() as asked:
        run = asked.note_run(run_id, text)
    if as_json:
        print_json(run)
    else:
        stdout().print(f"run {run_id}: {clean(run['note']) or 'no note'}")


def tries(run_id: int, task: str | None, as_json: bool) -> None:
    """Earlier tries, oldest first."""
    with client() as asked:
        found = asked.tries(run_id, task)
    if as_json:
        print_json(found)
        return
    rows = [
        (named(row), row["number"], state(row["state"]), row["job"], f"v{row['version']}", took(row),
         row["closed_by"], ago(row["closed_at"]), row["detail"])
        for row in found
    ]  # fmt: skip
    print_table(("task", "try", "state", "job", "version", "took", "by", "when", "detail"), rows, right=("try",))
