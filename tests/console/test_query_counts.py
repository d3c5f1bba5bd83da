"""How many queries a page takes: the same for few rows as for many, and never above a limit."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests import work
from tests.api.objects import make_job, make_run
from tests.personas import Objects, World

from .conftest import People

LIMITS = {
    "/": 24,
    "/nodes/": 12,
    "/pools/": 16,
    "/pools/{pool_id}/": 24,
    "/pools/preview/": 16,
    "/contributions/": 10,
    "/queue/": 12,
    "/whatif/": 14,
    "/jobs/": 12,
    "/jobs/{job_id}/": 21,
    "/workflows/": 10,
    "/workflows/{workflow_id}/": 16,
    "/workflows/{workflow_id}/grid": 9,
    "/workflows/{workflow_id}/calendar/": 10,
    "/workflows/{workflow_id}/code/": 10,
    "/workflows/{workflow_id}/code/graph": 7,
    "/workflows/{workflow_id}/state/": 12,
    "/runs/": 10,
    "/runs/{run_id}/": 12,
    "/runs/{run_id}/graph": 8,
    "/runs/{run_id}/state/": 12,
    "/runs/{run_id}/gantt": 8,
    "/runs/{run_id}/tasks/check/": 10,
    "/quotas/": 13,
    "/quotas/{quota_id}/": 18,
    "/domains/": 12,
    "/tenants/": 10,
    "/tenants/{slug}/": 20,
    "/datasets/": 8,
    "/datasets/{dataset_id}/": 12,
    "/services/": 8,
    "/services/{service_id}/": 12,
    "/slot-pools/": 8,
    "/slot-pools/{slot_pool_id}/": 10,
    "/events/": 10,
    "/notifications/": 10,
    "/notifications/{destination_id}/": 10,
}


def more(world: World, start: int) -> None:
    """Another handful of everything that lists show."""
    for number in range(start, start + 4):
        work.simulated_node(world, f"sim-{number}", cards=1)
        make_job(world, f"more-{number}")
        make_run(world, f"etl-{number}")


@pytest.mark.parametrize("path", sorted(LIMITS))
def test_queries_do_not_grow_with_rows(world: World, objects: Objects, people: People, path: str) -> None:
    path, limit = path.format(**objects), LIMITS[path]
    more(world, 0)
    client = people.operator
    client.get(path)  # The session is read and the sums of the scheduler are warm.
    with CaptureQueriesContext(
        connection,
    ) as few:
        assert client.get(path).status_code == 200
    more(world, 10)
    client.get(path)  # New rows of the queue are read once and kept.
    with CaptureQueriesContext(connection) as many:
        client.get(path)
    assert len(many) <= len(few), "\n".join(query["sql"][:200] for query in many)
    assert len(many) <= limit, f"{len(many)} queries:\n" + "\n".join(query["sql"][:160] for query in many)
