"""What a new user sees: one command, a finished run on real data, a report, and a clean end."""

import json

from .conftest import DemoPortal


def test_demo_prints_accounts_links_and_duration(demo: DemoPortal) -> None:
    text = "\n".join(demo.output)
    assert {"olivia", "pavel", "ada", "mia", "gus", "tara", "otto"} <= set(demo.people)
    assert demo.url in text
    assert "demo run finished in" in text


def test_demo_run_succeeded_with_one_task_per_gpu_model(demo: DemoPortal) -> None:
    with demo.client("mia") as client:
        run = client.get("runs").json()["results"][0]
        assert run["state"] == "succeeded"
        tasks = client.get(f"runs/{run['id']}/tasks", params={"limit": 200}).json()["results"]
    demand = [task for task in tasks if task["name"] == "demand" and task["index"] >= 0]
    assert len(demand) == 7  # The models of the trace.
    assert {task["state"] for task in tasks} == {"succeeded"}


def test_report_is_a_plotly_page_that_its_tenant_can_open(demo: DemoPortal) -> None:
    with demo.client("mia") as client:
        run = client.get("runs").json()["results"][0]
        tasks = client.get(f"runs/{run['id']}/tasks", params={"limit": 200}).json()["results"]
        job = next(task["job"] for task in tasks if task["name"] == "report")
        artifacts = client.get(f"jobs/{job}/artifacts").json()["results"]
        report = next(item for item in artifacts if item["name"] == "report.html")
        body = client.get(f"jobs/{job}/artifacts/{report['id']}").text
    assert "Plotly.newPlot" in body
    with demo.client("gus") as stranger:
        assert stranger.get(f"jobs/{job}/artifacts/{report['id']}").status_code == 404


def test_second_portal_on_the_same_folder_is_refused_with_the_address(demo: DemoPortal) -> None:
    answer = demo.portal("up", "--port", demo.url.rsplit(":", 1)[1])
    assert answer.returncode == 2
    assert demo.url in answer.stdout + answer.stderr


def test_status_names_every_process(demo: DemoPortal) -> None:
    answer = json.loads(demo.portal("status", "--json", check=True).stdout)
    names = {item["name"] for item in answer["processes"]}
    assert {"postgres", "redis", "web", "worker", "beat", "agent"} <= names
