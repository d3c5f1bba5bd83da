"""kill -9 of any part in the middle of a 200-task run: every task still ends once, in success."""

import os
import signal
from collections import Counter
from typing import Any

import httpx
import pytest

from .conftest import DemoPortal, wait_until

TASKS = 200


def definition(name: str) -> dict[str, Any]:
    """200 tasks in 10 layers of 20, each layer after the one before; every task says its name and takes a moment."""
    return {
        "schema": 1,
        "name": name,
        "tasks": [
            {
                "id": f"t{layer}-{number}",
                "kind": "bash",
                "script": 'sleep 0.2; echo "task $RM_TASK_ID"; echo "\\"$RM_TASK_ID\\"" > $RM_RESULT',
                "upstream": [f"t{layer - 1}-{number}"] if layer else [],
            }
            for layer in range(10)
            for number in range(20)
        ],
    }


def all_tasks(client: httpx.Client, run: int) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    path: str | None = f"runs/{run}/tasks?limit=200"
    while path:
        page = client.get(path).raise_for_status().json()
        tasks += page["results"]
        path = page["next"]
    return tasks


@pytest.mark.parametrize("victim", ["worker", "web", "agent", "redis", "postgres"])
def test_kill_in_the_middle_of_a_run_changes_no_result(demo: DemoPortal, victim: str) -> None:
    with demo.client("ada") as client:
        body = {"tenant": "vision", "definition": definition(f"survival-{victim}")}
        workflow = client.post("workflows", json=body).raise_for_status().json()["id"]
        run = client.post(f"workflows/{workflow}/trigger", json={"params": {}}).raise_for_status().json()["id"]

        def finished() -> int:
            return sum(task["state"] == "succeeded" for task in all_tasks(client, run))

        wait_until(lambda: finished() >= TASKS // 5, 60, "a fifth of the tasks")
        before = demo.processes()[victim]
        os.kill(before, signal.SIGKILL)

        def ended() -> Any:
            answer = client.get(f"runs/{run}")
            return answer.status_code == 200 and answer.json()["state"] in ("succeeded", "failed", "cancelled")

        wait_until(ended, 120, f"the end of the run after kill -9 of {victim}")
        assert client.get(f"runs/{run}").json()["state"] == "succeeded"
        tasks = all_tasks(client, run)
        assert Counter(task["state"] for task in tasks) == {"succeeded": TASKS}
        for task in tasks:
            job = client.get(f"jobs/{task['job']}").raise_for_status().json()
            assert job["result"] == task["name"]
            attempts = client.get(f"jobs/{task['job']}/attempts").raise_for_status().json()["results"]
            assert sum(attempt["state"] == "succeeded" for attempt in attempts) == 1
            log = client.get(f"jobs/{task['job']}/logs").raise_for_status()
            assert log.text == f"task {task['name']}\n"
            assert log.headers["X-Log-Complete"] == "true"
    assert demo.processes()[victim] != before
    drift = demo.portal("manage", "drift")
    assert drift.returncode == 0, drift.stdout + drift.stderr
