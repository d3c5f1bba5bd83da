"""Jobs are found by their labels: by an index, whoever made them and whenever."""

from importlib import import_module
from typing import Any

import pytest
from django.db import connection

from apps.jobs.models import Job, JobLabel
from tests.personas import World
from tests.work import submit


@pytest.fixture
def three(world: World) -> list[int]:
    """Jobs with one label, two, and none."""
    some = ({"app": "trainer"}, {"app": "trainer", "env": "prod"}, {})
    return [submit(world, labels=labels).pk for labels in some]


def listed(api: Any, query: str, persona: str = "member") -> list[int]:
    answer = getattr(api, persona).get(f"jobs?{query}")
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_all_labels_have_to_be_there(api: Any, three: list[int]) -> None:
    first, second, _ = three
    assert listed(api, "label=app=trainer") == [second, first]
    assert listed(api, "label=app=trainer&label=env=prod") == [second]
    assert listed(api, "label=app=trainer&state=running") == []
    assert listed(api, "label=app=other") == []
    assert listed(api, "label=app=trainer", "stranger") == []


@pytest.mark.parametrize("query", ["label=app", "label=", "label=app=a%20b", "label==x", "&".join(["label=a=b"] * 11)])
def test_what_is_no_label_is_refused(api: Any, world: World, query: str) -> None:
    answer = api.member.get(f"jobs?{query}")
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "label"


def test_jobs_from_before_get_their_rows(three: list[int]) -> None:
    before = list(JobLabel.objects.values_list("job_id", "label").order_by("job_id", "label"))
    JobLabel.objects.all().delete()
    migration = import_module("apps.jobs.migrations.0013_flavors_of_groups_and_labels")
    with connection.cursor() as cursor:
        cursor.execute(migration.FILL)
    assert list(JobLabel.objects.values_list("job_id", "label").order_by("job_id", "label")) == before


def test_a_rare_label_is_found_by_its_index(api: Any, world: World, three: list[int]) -> None:
    """Among many jobs that have another one; the page of jobs reads as many rows as it shows."""
    with connection.cursor() as cursor:
        columns = [field.column for field in Job._meta.concrete_fields if field.name != "id"]
        names = ", ".join(columns)
        cursor.execute(
            f"INSERT INTO jobs_job ({names}) SELECT {names} FROM jobs_job, generate_series(1, 20000) WHERE id = %s",
            [three[2]],
        )
        cursor.execute("INSERT INTO jobs_joblabel (job_id, label) SELECT id, 'app=web' FROM jobs_job")
        cursor.execute("ANALYZE jobs_job")
        cursor.execute("ANALYZE jobs_joblabel")
    for query, most in (("label=env=prod", 20), ("label=app=web", 1000), ("label=app=none", 20)):
        assert rows_read(api, query) <= most


def rows_read(api: Any, query: str) -> int:
    """Rows of jobs that PostgreSQL looks at for a page."""
    seen: list[tuple[str, Any]] = []

    def remember(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "jobs_joblabel" in sql:
            seen.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(remember):
        listed(api, query)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {seen[0][0]}", seen[0][1])
        plan = cursor.fetchone()[0]

    def scanned(node: dict[str, Any]) -> float:
        own = 0.0
        if node.get("Relation Name") == "jobs_job":
            own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return own + sum(scanned(child) for child in node.get("Plans", []))


    return int(scanned(plan[0]["Plan"]))
