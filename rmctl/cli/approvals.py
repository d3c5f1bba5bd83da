"""`rmctl approve`: the questions that tasks ask people."""

from typing import Any

from rich.text import Text

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, clean, print_json, print_table, stdout
from rmctl.cli.session import client, pairs
from rmctl.cli.workflows import json_or_text
from rmctl.spec.errors import did_you_mean


def waiting(as_json: bool) -> None:
    """What waits for an answer of whoever asks."""
    with client() as asked:
        rows = list(asked.pages("approvals", mine="true"))
    if as_json:
        print_json(rows)
    elif not rows:
        stdout().print("Nothing waits for you.")
    else:
        shown = [
            (row["id"], row["subject"], row["workflow"], row["run"], " | ".join(row["options"]), ago(row["expires_at"]))
            for row in rows
        ]
        print_table(("id", "subject", "workflow", "run", "options", "expires"), shown)


def answer(
    approval: int, option: str | None, given: list[str] | None, comment: str, as_json: bool
) -> None:
    """Show one question, or answer it."""
    with client() as asked:
        row: dict[str, Any] = asked.get(f"approvals/{approval}")
        if option is None:
            if given or comment:
                raise UsageError(f"Give the answer too: one of {', '.join(row['options'])}.")
            if as_json:
                print_json(row)
            else:
                _show(row)
            return
        if option not in row["options"]:
            hint = did_you_mean(option, row["options"])
            raise UsageError(f"{option} is not an answer to this question.{hint} Options: {', '.join(row['options'])}.")
        values = {key: json_or_text(text) for key, text in pairs(given, "--value").items()}
        body = {"option": option, "values": values, "comment": comment}
        done = asked.post(f"approvals/{approval}/answer", body)
    if as_json:
        print_json(done)
    else:
        stdout().print(f"{clean(done['subject'])}: {clean(done['option'])}; run {done['run']} goes on.")


def _show(row: dict[str, Any]) -> None:
    out = stdout()
    out.print(Text(clean(row["subject"]), style="bold"))
    out.print(f"{clean(row['workflow'])}, run {row['run']}, task {clean(row['task'])}: {row['state']}")
    if row["text"]:
        out.print(clean(row["text"], lines=True))
    for name, value in row["shown"].items():
        out.print(f"  {clean(name)}: {clean(value)}")
    for name, schema in row["form"].get("properties", {}).items():
        needed = ", required" if name in row["form"].get("required", []) else ""
        out.print(f"  --value {clean(name)}=… ({schema.get('type', 'any JSON')}{needed})")
    if row["state"] == "open":
        out.print(f"Options: {clean(', '.join(row['options']))}; open until {row['expires_at']}")
    elif row["option"]:
        out.print(f"Answer: {clean(row['option'])} by {clean(row['answered_by'] or 'its time-out')}")
