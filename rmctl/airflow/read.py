"""The facts about DAG files, read by Airflow itself in an environment of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmctl.sdk.options import SdkError

FACTS = Path(__file__).with_name("facts.py")
VARIABLE = "RMCTL_AIRFLOW_PYTHON"
HOW = (
    "Airflow reads its files itself, in an environment of its own:\n"
    "  python3 -m venv /opt/airflow && /opt/airflow/bin/pip install apache-airflow   # and the providers of your DAGs\n"
    f"then give --airflow-python /opt/airflow/bin/python, or set {VARIABLE}."
)


def read(files: Sequence[Path], interpreter: str | None, root: Path | None = None) -> dict[str, Any]:
    """What Airflow says about the files; `root` is a folder that they import from besides their own.

    Raises SdkError where there is no Airflow, or no such file.
    """
    chosen = interpreter or os.environ.get(VARIABLE)
    if not chosen:
        raise SdkError(f"Which Python has Airflow? {HOW}")
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise SdkError(f"{', '.join(missing)}: there is no such file.")
    with tempfile.TemporaryDirectory(prefix="rmctl-airflow-") as folder:
        answer = Path(folder, "facts.json")
        environment = {
            **os.environ,
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0",
            "AIRFLOW__CORE__DAGS_FOLDER": str(files[0].absolute().parent),
        }
        command = [chosen, str(FACTS), str(answer), str(root or ""), *(str(file.absolute()) for file in files)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise SdkError(f"{chosen} cannot be run: {error.strerror}. {HOW}") from None
        if done.returncode or not answer.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            hint = f"\n{HOW}" if "No module named 'airflow" in done.stderr else ""
            raise SdkError(f"{chosen} could not read the files with Airflow: {said[0]}{hint}")
        facts: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return facts
