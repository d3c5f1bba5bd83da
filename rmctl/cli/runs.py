"""`rmctl runs`: clear, mark, note and tries."""

from collections.abc import Mapping
from typing import Any

from rmctl.cli.output import ago, clean, print_json, print_table, span, state, stdout, took
from rmctl.cli.session import client

SHOWN = 40
DIFFERENCES = (
    ("added", "new in the newest version, will run"),
    ("removed", "not in the newest version, kept among the tries only"),
    ("changed", "defined otherwise in the newest version"),
    ("remapped", "cleared because mapped in only one of both versions"),
)


def clear(run_id: int, body: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """Clear, or say what would be."""
    with client() as asked:
        told = asked.clear_run(run_id, body, dry_run=dry_run)
    if as_json:
        print_json(told)
        return
    rows = [(_named(row), state(row["state"]), row["job"]) for row in told["tasks"][:SHOWN]]
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


def _named(row: Mapping[str, Any]) -> str:
    return row["name"] if row["index"] < 0 else f"{row['name']}[{row['index']}]"


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
        (_named(row), row["number"], state(row["state"]), row["job"], f"v{row['version']}", took(row),
         row["closed_by"], ago(row["closed_at"]), row["detail"])
        for row in found
    ]  # fmt: skip
    print_table(("task", "try", "state", "job", "version", "took", "by", "when", "detail"), rows, right=("try",))
