"""`rmctl backfill`: create, list, show, pause, resume, cancel, rerun."""

from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, clean, print_json, print_table, state, stdout, took
from rmctl.cli.runs import cost
from rmctl.cli.session import client, pairs, tenant_of
from rmctl.cli.workflows import json_or_text

SHOWN = 40


def create(
    name: str,
    tenant: str | None,
    first: str,
    last: str,
    options: dict[str, Any],
    given: list[str] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a backfill, or say what it would do."""
    params = {key: json_or_text(text) for key, text in pairs(given, "--param").items()}
    with client() as asked:
        workflow = asked.workflow(name, tenant_of(tenant))
        zone = ZoneInfo(workflow["timezone"])
        bounds = {"first": _moment(first, "--from", zone, time.min), "last": _moment(last, "--to", zone, time.max)}
        body = {"workflow": workflow["id"], **bounds, **options, "params": params}
        told = asked.create_backfill(body, dry_run=dry_run)
        link = f"{asked.url}/backfills/{told['id']}/"
    if as_json:
        print_json(told)
        return
    plan = told["plan"]
    if dry_run:
        rows = [(row["logical_time"], row["action"], row["run"], state(row["state"] or "")) for row in plan["slots"]]
        print_table(("logical time", "action", "existing run", "its state"), rows[:SHOWN])
        if plan["times"] > SHOWN:
            stdout().print(f"and {plan['times'] - SHOWN} more")
    runs = f"{plan['runs']} runs for {plan['times']} logical times"
    stdout().print(f"a backfill would make {runs}" if dry_run else f"backfill {told['id']} makes {runs}: {link}")
    stdout().print(cost(plan["estimate"]))


def _moment(text: str, option: str, zone: ZoneInfo, of_day: time) -> str:
    """A time as the API takes it; what names no zone is in the workflow's, and a date alone is `of_day` on it."""
    try:
        moment = datetime.combine(date.fromisoformat(text), of_day)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(f"{option} {text!r}: give a date such as 2026-01-31, or 2026-01-31T06:00.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).isoformat()


def list_all(name: str | None, of_state: str | None, limit: int, tenant: str | None, as_json: bool) -> None:
    """A row for each backfill."""
    with client() as asked:
        tenant = tenant_of(tenant)
        workflow = asked.workflow(name, tenant)["id"] if name else None
        found = asked.backfills(limit=limit, tenant=tenant, workflow=workflow, state=of_state)
    if as_json:
        print_json(found)
        return
    rows = [
        (row["id"], row["workflow_name"], state(row["state"]), row["first"][:16], row["last"][:16],
         _progress(row), ago(row["created_at"]), row["owner"])
        for row in found
    ]  # fmt: skip
    print_table(("id", "workflow", "state", "first", "last", "progress", "created", "owner"), rows)


def _progress(row: Mapping[str, Any]) -> str:
    counts = Counter(row["counts"])
    ended = counts["succeeded"] + counts["failed"] + counts["cancelled"] + row["position"] - row["made"]
    bad = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{ended} of {row['total']}{bad}"


def show(backfill_id: int, as_json: bool) -> None:
    """One backfill with its latest runs that failed."""
    with client() as asked:
        row = asked.backfill(backfill_id)
        failed = list(asked.pages("runs", backfill=backfill_id, state="failed", limit=SHOWN))
    if as_json:
        print_json({**row, "failed": failed})
        return
    stdout().print(f"backfill {row['id']} of {clean(row['workflow_name'])} v{row['version']}: {clean(row['state'])}")
    stdout().print(f"{row['first']} to {row['last']}, {row['order']}, at most {row['max_active_runs']} at once")
    stdout().print(f"{_progress(row)} logical times; {row['position'] - row['made']} had a run already")
    for name, count in sorted(row["counts"].items()):
        stdout().print(f"  {clean(name)}: {count}")
    if failed:
        print_table(("run", "logical time", "took"), [(run["id"], run["logical_time"], took(run)) for run in failed])


def act(backfill_id: int, verb: str, body: dict[str, Any], as_json: bool) -> None:
    """Pause, resume, cancel or re-run."""
    with client() as asked:
        row = asked.backfill_action(backfill_id, verb, body)
    if as_json:
        print_json(row)
    else:
        stdout().print(f"backfill {backfill_id}: {clean(row['state'])}, {_progress(row)}")
