"""Lists: pages by cursor, filters, unknown parameters, and a cost that does not grow."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core import pagination
from apps.core.actors import SYSTEM
from apps.core.bulk import insert
from apps.events.models import Event
from apps.events.queries import first_id_since
from apps.execution.models import Bundle
from apps.fleet import commands as fleet
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.notifications import commands as notifications
from apps.quotas import commands as quotas
from apps.quotas.budgets import create_budget
from apps.services.commands import deploy
from apps.tenants import commands as tenants
from apps.tenants import stored
from apps.workflows import commands as workflows
from apps.workflows.models import CacheUse, DatasetTrigger, Deadline, Run, Task, TaskTry
from tests.personas import Objects, World, make_user

from .objects import DEFINITION, make_approval, make_backfill, make_job, make_run, run_job
from .routes import api_routes

LISTS = sorted(
    route.path
    for route in api_routes()
    if (declared := route.operation("GET")) and declared.listing and not route.arguments
)


def path_of(link: str) -> str:
    parts = urlsplit(link)
    return f"{parts.path.removeprefix('/api/v1/')}?{parts.query}"


def pages(client: Any, path: str, link: str = "next") -> list[list[int]]:
    found = []
    while path:
        answer = client.get(path).json()
        found.append([row["id"] for row in answer["results"]])
        path = path_of(answer[link]) if answer[link] else ""
    return found


def test_pages_cover_everything_once_in_both_directions(api: Any, world: World) -> None:
    for number in range(5):
        tenants.create_domain(actor=SYSTEM, slug=f"d{number}")
    client = api.operator
    down = pages(client, "domains?limit=3")
    assert [len(page) for page in down] == [3, 3, 1]
    newest_first = [pk for page in down for pk in page]
    assert newest_first == sorted(newest_first, reverse=True)
    assert [pk for page in pages(client, "domains?limit=3&ordering=id") for pk in page] == newest_first[::-1]
    last = client.get("domains?limit=3").json()
    while last["next"]:
        last = client.get(path_of(last["next"])).json()
    back = pages(client, path_of(last["previous"]), "previous")
    assert back == [newest_first[3:6], newest_first[0:3]]


def test_a_page_stays_put_while_rows_are_added(api: Any) -> None:
    client = api.operator
    for number in range(4):
        tenants.create_domain(actor=SYSTEM, slug=f"d{number}")
    first = client.get("domains?limit=2").json()
    tenants.create_domain(actor=SYSTEM, slug="meanwhile")
    second = client.get(path_of(first["next"])).json()
    assert max(row["id"] for row in second["results"]) < min(row["id"] for row in first["results"])


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1.5", "", "99999999999", "१"])
def test_a_bad_limit_is_refused_by_name(api: Any, limit: str) -> None:
    answer = api.operator.get(f"domains?limit={limit}")
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "limit"


@pytest.mark.parametrize("cursor", ["x", "YQ", "YTE4NDQ2NzQ0MDczNzA5NTUxNjE1", "%00", "a1", "ä", "ew=="])
def test_a_made_up_cursor_is_refused(api: Any, cursor: str) -> None:
    answer = api.operator.get(f"domains?cursor={cursor}")
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "cursor"


def test_ordering_is_by_id_only(api: Any) -> None:
    answer = api.operator.get("domains?ordering=slug")
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "ordering"


@pytest.mark.parametrize("path", LISTS)
def test_unknown_parameters_are_refused_with_a_guess(api: Any, path: str) -> None:
    answer = api.operator.get(f"{path.removeprefix('/api/v1/')}?limt=3")
    assert answer.status_code == 422
    problem = answer.json()["errors"][0]
    assert (problem["field"], problem["code"]) == ("limt", "unknown_parameter")
    assert "'limit'" in problem["message"]


def grow(world: World, objects: Objects, number: int) -> None:
    """One more of everything that lists show, each with its own parents where the list is not of one thing."""
    domain = tenants.create_domain(actor=SYSTEM, slug=f"d{number}")
    tenant = tenants.create_tenant(actor=SYSTEM, domain=domain, slug=f"t{number}")
    user = make_user(f"user{number}")
    tenants.add_member(actor=SYSTEM, username=user.get_username(), role="member", tenant=world.vision)
    tenants.create_token(actor=world.actor("operator"), name=f"token {number}")
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name=f"secret{number}", value="x")
    stored.set_variable(actor=SYSTEM, tenant=world.vision, name=f"variable{number}", value="x")
    stored.set_connection(actor=SYSTEM, tenant=world.vision, name=f"connection{number}", fields={"type": "http"})
    cluster = fleet.create_cluster(actor=SYSTEM, domain=domain, name=f"c{number}")
    fleet.create_join_token(actor=SYSTEM, cluster=cluster)
    fleet.create_contribution(actor=SYSTEM, cluster=cluster, consumers=[domain, world.alpha])
    fleet.set_region(actor=SYSTEM, name=f"r{number}", carbon=1.0, round_trips={})
    pool = fleet.create_pool(actor=SYSTEM, name=f"p{number}")
    fleet.create_flavor(actor=SYSTEM, pool=pool, name=f"f{number}")
    leaf = quotas.create_quota_node(actor=SYSTEM, name=f"q{number}", parent=world.cohort, tenant=tenant)
    limits = [{"flavor": f"f{number}", "resource": "cpu", "nominal": 1}]
    quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=limits)
    create_budget(actor=SYSTEM, tenant=tenant, measure="running", amount=5)
    node = world.node(f"n{number}", cluster, gpus=[{"index": 0, "model": "A100", "memory_bytes": 1}])
    run_job(world, make_job(world, f"job{number}"), node)
    run_job(world, Job.objects.get(pk=objects["job_id"]), node, token=number)
    Bundle.objects.create(tenant=tenant, sha256=f"{number:064}", size=1)
    grow_workflows(world, objects, number)
    member = world.actor("member")
    deploy(actor=member, tenant=world.vision, data={"name": f"s{number}", "job": {"groups": [{"command": ["true"]}]}})
    destination, _ = notifications.create_destination(
        actor=SYSTEM, tenant=world.vision, name=f"d{number}", channel="webhook", url="https://example.org/hook"
    )
    notifications.subscribe(actor=member, destination_id=destination.pk, kinds=["run.failed"], workflow="etl")
    notifications.send_test(actor=member, destination_id=destination.pk)


def grow_workflows(world: World, objects: Objects, number: int) -> None:
    """The same for workflows and their runs; what only a run that goes on makes, as rows."""
    member, now = world.actor("member"), timezone.now()
    run = make_run(world, f"etl{number}")
    make_approval(run)
    make_backfill(world, run)
    workflows.create_slot_pool(actor=SYSTEM, tenant=world.vision, name=f"slots{number}", size=1)
    workflows.create_webhook(actor=member, tenant=world.vision, name=f"hook{number}", workflow=f"etl{number}")
    workflows.update_dataset(actor=member, tenant=world.vision, uri=f"s3://bucket/{number}")
    definition = {**DEFINITION, "description": f"version {number}"}
    workflows.push(actor=member, tenant=world.vision, definition=definition)
    workflows.set_state(actor=member, workflow_id=objects["workflow_id"], key=f"key{number}", value=1)
    workflows.set_state(actor=member, run_id=objects["run_id"], key=f"key{number}", value=1)
    first = Run.objects.get(pk=objects["run_id"])
    event = workflows.update_dataset(actor=member, tenant=world.vision, uri="s3://a/b")
    DatasetTrigger.objects.create(workflow_id=first.workflow_id, event=event, run=first)
    instance = {"name": "check", "index": number}
    Task.objects.create(run=first, **instance, job=make_job(world))
    Deadline.objects.create(run=first, task=f"task{number}", kind="deadline", after_seconds=60, since=now, due_at=now)
    last = {"number": 1, "version": first.version, "state": "failed", "job": make_job(world), "closed_at": now}
    TaskTry.objects.create(run=first, **instance, **last)
    use = {"tenant": world.vision, "workflow_id": first.workflow_id, "key": "k", "parts": {}, "ttl": 60, "at": now}
    entry = CacheUse.objects.create(**use, **instance, run=run, outcome="miss", job=make_job(world))
    CacheUse.objects.create(**use, **instance, run=first, outcome="hit", source=entry)


def test_lists_take_the_same_queries_for_few_rows_and_for_many(api: Any, world: World, objects: Objects) -> None:
    listings = [
        route.fill(objects).removeprefix("/api/v1/")
        for route in api_routes()
        if (declared := route.operation("GET")) and declared.listing
    ]
    client, found = api.operator, []
    for numbers in (range(2, 4), range(4, 14)):
        for number in numbers:
            grow(world, objects, number)
        for path in listings:
            client.get(f"{path}?limit=200")  # Whatever is kept after the first time is kept now.
        rows, counts = {}, {}
        for path in listings:
            with CaptureQueriesContext(connection) as captured:
                answer = client.get(f"{path}?limit=200")
            assert answer.status_code == 200, (path, answer.content)
            rows[path], counts[path] = len(answer.json()["results"]), len(captured)
        found.append((rows, counts))
    (few, before), (many, after) = found
    assert [path for path in listings if many[path] < few[path] + 10] == [], "these lists have not grown"
    assert before == after
    # Token, roles, the page, and a few for what hangs on it; pools also count their members.
    assert max(after.values()) <= 10, after


def test_a_page_far_down_a_large_table_costs_what_the_first_does(api: Any, world: World) -> None:
    from django.utils import timezone

    now = timezone.now()
    insert(
        Event(at=now, actor="system", subject_type="job", subject_id=number, verb="job.submitted")
        for number in range(20_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE events_event")
    deep = Event.objects.order_by("id")[100].pk
    for condition in ("", f"WHERE id < {deep}"):
        with connection.cursor() as cursor:
            cursor.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM events_event {condition} ORDER BY id DESC LIMIT 51"
            )
            plan = cursor.fetchone()[0][0]["Plan"]
        while "Plans" in plan:
            plan = plan["Plans"][0]
        assert plan["Node Type"] == "Index Scan" and plan["Actual Rows"] <= 51
    with CaptureQueriesContext(connection) as captured:
        api.operator.get("events?limit=50")
    assert not [query for query in captured if "COUNT(" in query["sql"].upper()]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nodes?state=broken", "state"),
        ("nodes?label=zone", "label"),
        ("events?subject=job:x", "subject"),
        ("events?after=yesterday", "after"),
        ("events?tenant=-1", "tenant"),
        ("events?tenant=99999999999999999999", "tenant"),
        ("events?verb=%00", "verb"),
        ("jobs?state=asleep", "state"),
        ("clusters?kind=magic", "kind"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_by_name(api: Any, query: str, field: str) -> None:
    answer = api.operator.get(query)
    assert answer.status_code == 422, answer.content
    assert answer.json()["errors"][0]["field"] == field


def test_filters_select(api: Any, world: World) -> None:
    node = world.node("n1")
    fleet.set_labels(actor=SYSTEM, node_id=node.pk, labels={"zone": "a"})
    gone = world.node("n2")
    fleet.remove_node(actor=SYSTEM, node_id=gone.pk)
    client = api.operator

    def names(query: str) -> list[str]:
        return [row["name"] for row in client.get(f"nodes?{query}").json()["results"]]

    assert names("") == ["n1"]
    assert names("state=removed") == ["n2"]
    assert names("state=removed&state=ready") == ["n2", "n1"]
    assert names("label=zone=a") == ["n1"] and names("label=zone=b") == []
    assert names("cluster=alpha-agents&region=eu&domain=alpha&name=N1") == ["n1"]
    verbs = [row["verb"] for row in client.get(f"events?subject=node:{gone.pk}").json()["results"]]
    assert verbs == ["node.removed", "node.joined"]
    assert {row["verb"].split(".")[0] for row in client.get("events?verb=node.*").json()["results"]} == {"node"}
    assert client.get("events?actor=agent:n1").json()["results"][0]["verb"] == "node.joined"


# Long lists

def made(count: int) -> list[int]:
    return [
        event.pk
        for event in insert(
            Event(at=timezone.now(), actor=f"user:{number % 4}", subject_type="thing", subject_id=number, verb="x.y")
            for number in range(count)
        )
    ]


def test_a_filter_without_an_index_looks_at_a_part_of_the_list_in_each_page(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Event.objects.all().delete()
    ids = made(40)
    Event.objects.filter(pk__in=ids[12:30]).delete()  # A gap is leapt over.
    mine = [pk for place, pk in enumerate(ids) if place % 4 == 1 and not 12 <= place < 30]
    monkeypatch.setattr(pagination, "SCAN_ROWS", 6)
    client = api.operator
    for ordering, expected in (("-id", mine[::-1]), ("id", mine)):
        parts = pages(client, f"events?actor=user:1&ordering={ordering}")
        assert [pk for page in parts for pk in page] == expected
        assert len(parts) <= 5
        last = f"events?actor=user:1&ordering={ordering}"
        while (following := client.get(last).json()["next"]) is not None:
            last = path_of(following)
        back = client.get(last).json()
        found = [row["id"] for row in back["results"]]
        before = pages(client, path_of(back["previous"]), "previous")
        assert [pk for page in before[::-1] for pk in page] + found == expected
    assert pages(client, "events?actor=user:9&limit=5")[-1] == []
    full = client.get("events?actor=user:1&limit=1").json()
    assert [row["id"] for row in full["results"]] == [mine[-1]] and full["next"]
    # With an index behind the filter a page is always full.
    assert len(client.get("events?subject=thing").json()["results"]) == 22


def test_events_are_found_by_time_though_their_ids_are_a_little_out_of_order(api: Any) -> None:
    Event.objects.all().delete()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    late = [0, 3, 1, 2, 400, 401, 340, 800, 790, 1200]
    insert(
        Event(at=start + timedelta(seconds=second), actor="x", subject_type="t", subject_id=second, verb="x.y")
        for second in late
    )
    Event.objects.filter(subject_id=2).delete()
    late.remove(2)
    client = api.operator
    for bound in (-1, 0, 1, 2, 340, 341, 400, 795, 1200, 1201, 10_000):
        text = f"{start + timedelta(seconds=bound):%Y-%m-%dT%H:%M:%SZ}"
        for name, expected in (("after", {s for s in late if s >= bound}), ("before", {s for s in late if s < bound})):
            rows = client.get(f"events?subject=t&{name}={text}").json()["results"]
            assert {row["subject_id"] for row in rows} == expected, (name, bound)
    Event.objects.all().delete()
    assert first_id_since(start) == 0


@pytest.mark.parametrize("path", ["jobs?tenant=vision", "jobs?owner=max", "runs?tenant=vision"])
def test_a_name_is_looked_up_before_the_list_is_read(api: Any, world: World, path: str) -> None:
    make_job(world, "one")
    with CaptureQueriesContext(connection) as queries:
        assert api.operator.get(path).status_code == 200
    name, value = path.partition("?")[2].split("=")
    (listing,) = (query["sql"] for query in queries if " LIMIT 51" in query["sql"])
    assert value not in listing, listing
    nothing = api.operator.get(f"{path.partition('?')[0]}?{name}=nobody").json()
    assert nothing == {"next": None, "previous": None, "results": []}


def test_only_pending_jobs_have_a_reason_or_are_held(api: Any, world: World) -> None:
    waiting, held, ended = (make_job(world, name) for name in ("waiting", "held", "ended"))
    jobs.hold(actor=SYSTEM, job_id=held.pk)
    jobs.hold(actor=SYSTEM, job_id=ended.pk)
    jobs.cancel(actor=SYSTEM, job_id=ended.pk)

    def listed(query: str) -> set[int]:
        return {row["id"] for row in api.operator.get(f"jobs?{query}").json()["results"]}

    assert listed("held=true") == listed("reason=held") == {held.pk}
    assert listed("held=false") == {waiting.pk, ended.pk}
    assert listed("reason=submitted&reason=held") == {waiting.pk, held.pk}
