"""`rmctl checkpoints`: what a job's members have saved, and how to get it."""

import hashlib
from pathlib import Path
from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, print_json, print_table, size, stdout
from rmctl.cli.session import client
from rmctl.client import Client

COLUMNS = ("id", "saved", "attempt", "group", "rank", "size", "sha256")


def show(job: int, folder: Path | None, as_json: bool) -> None:
    """List them; into a folder, download the newest of each member and check it."""
    with client() as asked:
        rows = asked.checkpoints(job)
        saved = [_download(asked, job, row, folder) for row in _newest(rows)] if folder is not None else []
    if as_json:
        print_json(rows if folder is None else saved)
        return
    if folder is None:
        lines = [
            (
                row["id"], ago(row["at"]), row["attempt"], row["group"], row["rank"], size(row["size"]),
                row["sha256"][:12],
            )
            for row in rows
        ]  # fmt: skip
        print_table(COLUMNS, lines, right=("id", "attempt", "group", "rank", "size"))
        return
    for path in saved:
        stdout().print(path)


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["group"], row["rank"]), row)
    return list(found.values())


def _download(asked: Client, job: int, row: dict[str, Any], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"job-{job}-{row['group']}-{row['rank']}.tar.gz"
    # One that was downloaded before stays until the new one is whole.
    part = folder / f"{path.name}.part"
    try:
        with open(part, "w+b") as file:
            asked.save_checkpoint(job, row["id"], file)
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != row["sha256"]:
                raise UsageError(f"Checkpoint {row['id']} did not arrive whole: try again.")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return str(path)
