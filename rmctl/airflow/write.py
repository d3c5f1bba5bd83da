"""An imported workflow as files: `workflow.yaml` in a folder of its own, and beside it what its bundle ships."""

from pathlib import Path
from typing import Any

import yaml

from .convert import Imported

WORKFLOW_FILE = "workflow.yaml"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    block = "\n" in data and not any(line != line.rstrip() for line in data.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if block else None)


_Dumper.add_representer(str, _text)


def write(imported: Imported, out: Path) -> Path:
    """Write the files of a workflow and return the path of its `workflow.yaml`."""
    folder = out / imported.name
    for name, text in imported.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WORKFLOW_FILE
    path.write_text(yaml_text(imported), encoding="utf-8")
    return path


def yaml_text(imported: Imported) -> str:
    """The workflow as YAML, below a comment that says what is different from Airflow."""
    lines = [f"# From {Path(imported.source).name} of Airflow, by rmctl import airflow."]
    for finding in imported.findings:
        said = str(finding).replace("\n", " ")
        lines.append(f"# {said}")
    definition = dict(imported.definition)
    tasks = definition.pop("tasks")
    groups = definition.pop("groups", [])
    if imported.files:
        definition["files"] = sorted(imported.files)
    if groups:
        definition["groups"] = {one["id"]: {k: v for k, v in one.items() if k != "id"} for one in groups}
    definition["tasks"] = {one["id"]: _short(one) for one in tasks}
    written = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
    return "\n".join([*lines, written])


def _short(task: dict[str, Any]) -> dict[str, Any]:
    """A task without what its other fields say already."""
    implied = {"id", "kind"} if task["kind"] in ("bash", "python", "wait_for_run", "trigger_run") else {"id"}
    return {name: value for name, value in task.items() if name not in implied and value != []}
