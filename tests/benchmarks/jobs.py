"""`./portal bench jobs`: single jobs through the REST API, and how fast reasons and list pages come."""

import time
from typing import Any

from .common import TERMINAL, Portal, finish, machine, memory, peak_memory, seconds, spread

JOB = {"name": "nothing", "groups": [{"script": "true"}]}


def submit_and_wait(portal: Portal, count: int) -> dict[str, Any]:
    """Jobs one after the other by one client: submit to start, and submit to end."""
    from apps.jobs.models import Job

    starts, ends, submits = [], [], []
    for _ in range(count):
        began = time.time()
        job_id = portal.call("POST", "jobs", json={**JOB, "tenant": portal.tenant})["id"]
        submits.append(time.time() - began)
        while Job.objects.values_list("state", flat=True).get(pk=job_id) not in TERMINAL:
            time.sleep(0.005)
        job = Job.objects.get(pk=job_id)
        assert job.started_at and job.ended_at
        starts.append(seconds(job.started_at) - began)
        ends.append(seconds(job.ended_at) - began)
    return {"submit_ms": spread(submits), "submit_to_start_ms": spread(starts), "submit_to_end_ms": spread(ends)}


def reason_latency(portal: Portal, count: int) -> dict[str, Any]:
    """How long a job that must wait has only the reason `submitted`."""
    from apps.jobs.models import Job

    group = {"script": "sleep 60", "resources": {"cpu": "1"}}
    blocker = {"name": "blocker", "tenant": portal.tenant, "groups": [group]}
    cores = portal.call("GET", "nodes")["results"][0]["cpu_millicores"] // 1000
    blockers = [portal.call("POST", "jobs", json=blocker)["id"] for _ in range(cores)]
    waits = []
    waiting = []
    for _ in range(count):
        began = time.time()
        job_id = portal.call("POST", "jobs", json={**blocker, "name": "waiting"})["id"]
        waiting.append(job_id)
        while Job.objects.values_list("reason", flat=True).get(pk=job_id) == "submitted":
            time.sleep(0.005)
        waits.append(time.time() - began)
    for job_id in waiting + blockers:
        portal.call("POST", f"jobs/{job_id}/cancel", json={})
    return {"reason_ms": spread(waits)}


def list_pages(portal: Portal, count: int) -> dict[str, Any]:
    """The first page of jobs, and every following one."""
    times = []
    path = "jobs?limit=50"
    for _ in range(count):
        began = time.perf_counter()
        page = portal.call("GET", path)
        times.append(time.perf_counter() - began)
        path = page["next"] or "jobs?limit=50"
    return {"list_page_ms": spread(times)}


def main() -> None:
    portal = Portal()
    portal.wait_for_node()
    result: dict[str, Any] = {"benchmark": "jobs", "machine": machine(), "memory_at_rest_mib": memory()}
    submit_and_wait(portal, 3)
    with peak_memory(result):
        result.update(submit_and_wait(portal, 50))
        result.update(reason_latency(portal, 20))
        result.update(list_pages(portal, 50))
    finish(result)


if __name__ == "__main__":
    main()
