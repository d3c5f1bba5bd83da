"""What Airflow said about the DAG files of this folder, so that the conversion is tested where there is no Airflow.

`python -m tests.rmctl.airflow.recorded NAME PYTHON` writes it anew with the Python of an environment that has Airflow:
2.11 for `classic` and `wrapped`, 3 for `taskflow`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rmctl.airflow.read import read

FOLDER = Path(__file__).parent
DAGS = FOLDER / "dags"


def recorded(name: str) -> dict[str, Any]:
    """The facts of one file, with the paths of this machine."""
    text = (FOLDER / "facts" / f"{name}.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text.replace("/dags/", f"{json.dumps(str(DAGS))[1:-1]}/"))
    facts["sources"] = {path: Path(path).read_text(encoding="utf-8") for path in facts["sources"]}
    return facts


def plain(facts: dict[str, Any]) -> str:
    """The facts without what differs between machines; sources stay in their files."""
    major = facts["airflow"].partition(".")[0]
    kept = {**facts, "airflow": major, "python": "", "sources": sorted(facts["sources"])}
    return json.dumps(kept, indent=1, sort_keys=True).replace(f"{DAGS}/", "/dags/") + "\n"


if __name__ == "__main__":
    name, interpreter = sys.argv[1:]
    path = FOLDER / "facts" / f"{name}.json"
    path.write_text(plain(read([DAGS / f"{name}.py"], interpreter)), encoding="utf-8")
