"""`rmctl list`, `nodes` and `top`."""

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmctl.cli.failures import UsageError
from rmctl.cli.output import (
    ago,
    amount,
    bar,
    cores,
    interactive,
    print_json,
    print_table,
    size,
    state,
    stdout,
    table,
    took,
)
from rmctl.cli.session import client, pairs
from rmctl.spec.errors import did_you_mean

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of thing is listed: its columns, and one or more table rows for each row of the API."""

    columns: tuple[str, ...]
    rows: Callable[[Row], list[tuple[object, ...]]]
    right: tuple[str, ...] = ()


def _job(row: Row) -> list[tuple[object, ...]]:
    said = row.get("detail") if row["state"] in ("pending", "failed") else ""
    return [(row["id"], row["name"], row.get("tenant"), state(row["state"]), row.get("priority"), took(row),
             ago(row.get("submitted_at")), said)]  # fmt: skip


def _workflow(row: Row) -> list[tuple[object, ...]]:
    plan = "paused" if row.get("paused") else row.get("schedule") or "by hand"
    return [
        (row["id"], row["name"], row.get("tenant"), row.get("version"), plan, ago(row.get("next_run_at")))
    ]


def _run(row: Row) -> list[tuple[object, ...]]:
    when, created = row.get("logical_time"), ago(row.get("created_at"))
    return [
        (
            row["id"],
            row.get("workflow_name"),
            state(row["state"]),
            row.get("trigger"),
            when,
            took(row),
            created,
        )
    ]


def _gpus(row: Row) -> str:
    models: dict[str, int] = {}
    for gpu in row.get("gpus") or []:
        models[gpu["model"]] = models.get(gpu["model"], 0) + 1
    return ", ".join(f"{count} × {model}" for model, count in models.items())


def _node(row: Row) -> list[tuple[object, ...]]:
    return [(
        row["id"], row["name"], row.get("cluster"), state(row["state"]),
        f"{cores(row['allocated_cpu_millicores'])} / {cores(row['cpu_millicores'])}",
        f"{size(row['allocated_memory_bytes'])} / {size(row['memory_bytes'])}",
        _gpus(row), row.get("running"), ago(row.get("last_seen_at")),
    )]  # fmt: skip


def _pool(row: Row) -> list[tuple[object, ...]]:
    query = row.get("query")
    text = ", ".join(f"{key}: {value}" for key, value in query.items()) if isinstance(query, dict) else query
    return [(row["id"], row["name"], row.get("nodes"), text or "every node")]


def _quota(row: Row) -> list[tuple[object, ...]]:
    name = "  " * int(row.get("depth") or 0) + str(row["name"])
    rows: list[tuple[object, ...]] = []
    for cell in row.get("cells") or [{}]:
        if not cell:
            return [(name, row.get("tenant"), "", "", "", "", "")]
        resource = cell["resource"]
        rows.append((
            name, row.get("tenant"), cell["flavor"], resource, amount(resource, cell["used"]),
            amount(resource, cell["nominal"]), amount(resource, cell["borrowing_limit"]),
        ))  # fmt: skip
        name = ""
    return rows


def _event(row: Row) -> list[tuple[object, ...]]:
    facts = row.get("facts") or {}
    text = ", ".join(f"{key}={value}" for key, value in facts.items())
    subject = f"{row['subject_type']}:{row['subject_id']}"
    detail = f"{row.get('reason') or ''} {text}".strip()
    return [(row["id"], ago(row.get("at")), row["verb"], subject, row.get("actor"), detail)]


def _tenant(row: Row) -> list[tuple[object, ...]]:
    return [
        (row["slug"], row.get("name"), row.get("domain"), "suspended" if row.get("suspended") else "active")
    ]


def _budget(row: Row) -> list[tuple[object, ...]]:
    of = next(f"{kind} {row[kind]}" for kind in ("domain", "tenant", "user") if row.get(kind))
    if row.get("tenant") and row.get("user"):
        of = f"{row['user']} in {of}"
    if row.get("workflow"):
        of = f"workflow {row['workflow']} of {of}"
    period = row.get("period") or ""
    measure = f"{row['measure']} {'in' if period[:1].isdigit() else 'a'} {period}" if period else row["measure"]
    kind = "hard" if row.get("hard") else "warns"
    until, next_period = ((row.get(name) or "")[:16].replace("T", " ") for name in ("exhausted_at", "free_at"))
    next_period = next_period or (row.get("resets_at") or "")[:16].replace("T", " ")
    by = row.get("set_by", "")
    return [(row["id"], of, measure, f"{row['used']:.4g}", f"{row['amount']:g}", kind, by, until, next_period)]


KINDS = {
    "jobs": Kind(
        ("id", "name", "tenant", "state", "priority", "time", "submitted", "detail"), _job, ("id", "priority")
    ),
    "workflows": Kind(
        ("id", "name", "tenant", "version", "schedule", "next run"), _workflow, ("id", "version")
    ),
    "runs": Kind(("id", "workflow", "state", "trigger", "logical time", "time", "created"), _run, ("id",)),
    "nodes": Kind(
        ("id", "name", "cluster", "state", "cores", "memory", "gpus", "tasks", "seen"),
        _node,
        ("id", "cores", "tasks"),
    ),
    "pools": Kind(("id", "name", "nodes", "query"), _pool, ("id", "nodes")),
    "quotas": Kind(
        ("name", "tenant", "flavor", "resource", "used", "nominal", "may borrow"),
        _quota,
        ("used", "nominal", "may borrow"),
    ),
    "budgets": Kind(
        ("id", "of", "measure", "used", "amount", "limit", "set by", "used up", "free again"),
        _budget,
        ("id", "used", "amount"),
    ),
    "events": Kind(("id", "when", "verb", "subject", "actor", "detail"), _event, ("id",)),
    "tenants": Kind(("slug", "name", "domain", "state"), _tenant),
}


def show(
    kind: str,
    tenant: str | None,
    wanted: str | None,
    where: list[str] | None,
    limit: int,
    as_json: bool,
    label: list[str] | None = None,
) -> None:
    """One list as a table or JSON; of jobs those that have all labels."""
    if kind not in KINDS:
        raise UsageError(f"There is no list of {kind}.{did_you_mean(kind, KINDS)} Lists: {', '.join(KINDS)}.")
    filters = {"tenant": tenant, "state": wanted.split(",") if wanted else None, "label": label}
    filters |= pairs(where, "--filter")
    with client() as asked:
        rows = list(
            asked.pages(kind, limit=limit, **{name: value for name, value in filters.items() if value})
        )
    if as_json:
        print_json(rows)
        return
    shape = KINDS[kind]
    cells = list(itertools.chain.from_iterable(shape.rows(row) for row in rows))
    print_table(shape.columns, cells, right=shape.right, empty=f"no {kind} that you can see")


def follow(kind: str, where: list[str] | None, as_json: bool) -> None:
    """Events from now on, a line for each, until Ctrl-C."""
    if kind != "events":
        raise UsageError(f"Only events can be followed, as in: rmctl list events --follow. Leave it out for {kind}.")
    given = {"after": datetime.now(UTC).isoformat(), **pairs(where, "--filter")}
    with client() as asked:
        for row in asked.events(**given):
            if as_json:
                line = json.dumps(row, ensure_ascii=False)
            else:
                [(number, _, *cells)] = _event(row)
                line = "  ".join(map(str, (number, row["at"][:19].replace("T", " "), *cells)))
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def top(interval: float, once: bool, as_json: bool) -> None:
    """What the nodes have given and use, again and again."""
    with client() as asked:
        if once or as_json or not interactive():
            rows = list(asked.pages("nodes"))
            if as_json:
                print_json(rows)
            else:
                stdout().print(_usage(rows))
            return
        with Live(console=stdout(), auto_refresh=False, screen=True) as live:
            while True:
                live.update(_usage(list(asked.pages("nodes"))), refresh=True)
                time.sleep(interval)


def _usage(rows: list[Row]) -> Table:
    """Granted shares from the ledger; used ones from the latest telemetry where the node sent one."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["state"] != "ready", row["name"])):
        sample = row.get("telemetry") or {}
        gpus = row.get("gpus") or []
        lines.append((
            row["name"],
            state(row["state"]),
            bar(row["allocated_cpu_millicores"], row["cpu_millicores"]),
            bar(sample["cpu_percent"], 100) if "cpu_percent" in sample else Text("–", style="dim"),
            bar(row["allocated_memory_bytes"], row["memory_bytes"]),
            bar(sample["memory_used"], sample["memory_total"])
            if sample.get("memory_total")
            else Text("–", style="dim"),
            bar(sum(gpu["allocated_milli"] for gpu in gpus), 1000 * len(gpus)) if gpus else "",
            row.get("running"),
            ago(row.get("last_seen_at")),
        ))  # fmt: skip
    columns = (
        "node",
        "state",
        "cpu granted",
        "cpu used",
        "memory granted",
        "memory used",
        "gpu granted",
        "tasks",
        "seen",
    )
    return table(columns, lines, right=("tasks",))
