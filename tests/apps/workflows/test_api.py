"""The REST routes of workflows and runs."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.workflows import commands, queries
from apps.workflows.models import Run, Workflow
from apps.workflows.plans import plans
from tests.apps.workflows.driver import bash, begin, definition, empty, end, start, step
from tests.personas import World

pytestmark = pytest.mark.django_db

TASKS = [bash("a"), bash("m", "a", map={"over": {"x": {"value": [1, 2, 3]}}}), empty("z", "m")]


def push(api: Any, *tasks: dict[str, Any], persona: str = "member", query: str = "", **fields: Any) -> Any:
    body = {"tenant": "vision", "definition": definition(*(tasks or TASKS), **fields)}
    return api.as_(persona).post(f"workflows{query}", body)


def test_push_trigger_watch_and_cancel(api: Any, world: World) -> None:
    pushed = push(api)
    assert pushed.status_code == 201
    body = pushed.json()
    assert (body["tenant"], body["name"], body["version"], body["created"]) == ("vision", "etl", 1, True)
    assert push(api).json() == {**body, "created": False}
    answer = api.member.post(f"workflows/{body['id']}/trigger", {"params": {}, "note": "first"})
    assert answer.status_code == 201
    run = answer.json()
    assert (run["state"], run["workflow_name"], run["version"], run["note"], run["owner"]) == (
        "queued", "etl", 1, "first", "max"
    )  # fmt: skip
    step()
    end(Run.objects.get(pk=run["id"]), "a")
    step()
    detail = api.member.get(f"runs/{run['id']}").json()
    assert detail["counts"] == {"succeeded": 1, "queued": 3, "waiting": 1}
    assert (detail["done"], detail["total"], detail["state"]) == (1, 5, "running")
    tasks = api.member.get(f"runs/{run['id']}/tasks?state=queued").json()["results"]
    assert [(task["name"], task["index"], task["job_state"]) for task in tasks] == [
        ("m", -1, None), ("m", 0, "pending"), ("m", 1, "pending"), ("m", 2, "pending")
    ]  # fmt: skip
    answer = api.member.post(f"runs/{run['id']}/cancel", {"reason": "enough"})
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    again = api.member.post(f"runs/{run['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "already_ended")


def test_the_graph_of_a_run(api: Any, world: World) -> None:
    run = start(world.vision, *TASKS)
    end(run, "a")
    step()
    begin(run, "m", 1)
    step()
    graph = api.auditor.get(f"runs/{run.pk}/graph").json()
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {
        "a": "succeeded", "m": "running", "z": "waiting"
    }  # fmt: skip
    assert (nodes["m"]["width"], nodes["m"]["counts"]) == (3, {"queued": 2, "running": 1})
    assert (nodes["z"]["kind"], nodes["m"]["mapped"], nodes["a"]["rule"]) == ("empty", True, "all_success")
    assert graph["edges"] == [{"source": "a", "target": "m"}, {"source": "m", "target": "z"}]
    assert graph["levels"] == [["a"], ["m"], ["z"]]


def test_versions(api: Any, world: World) -> None:
    first = push(api, bash("a")).json()
    push(api, bash("a"), bash("b"))
    listed = api.auditor.get(f"workflows/{first['id']}/versions").json()["results"]
    assert [(version["number"], version["owner"]) for version in listed] == [(2, "max"), (1, "max")]
    one = api.auditor.get(f"workflows/{first['id']}/versions/1").json()
    assert one["digest"] == first["digest"]
    assert [task["id"] for task in one["definition"]["tasks"]] == ["a"]
    assert api.member.get(f"workflows/{first['id']}/versions/9").status_code == 404


def test_pause_and_resume(api: Any, world: World) -> None:
    pk = push(api, schedule="@hourly").json()["id"]
    paused = api.member.post(f"workflows/{pk}/pause", {"reason": "holiday"}).json()
    assert (paused["paused"], paused["schedule"]) == (True, "@hourly")
    resumed = api.member.post(f"workflows/{pk}/resume").json()
    assert resumed["paused"] is False and resumed["next_run_at"]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("workflows/{workflow}", "get"),
        ("workflows/{workflow}/versions", "get"),
        ("workflows/{workflow}/versions/1", "get"),
        ("workflows/{workflow}/trigger", "post"),
        ("workflows/{workflow}/pause", "post"),
        ("workflows/{workflow}/resume", "post"),
        ("runs/{run}", "get"),
        ("runs/{run}/tasks", "get"),
        ("runs/{run}/graph", "get"),
        ("runs/{run}/cancel", "post"),
    ],
)
def test_who_gets_what(api: Any, world: World, path: str, method: str) -> None:
    run = start(world.vision, bash("a"))
    where = path.format(workflow=run.workflow_id, run=run.pk)
    statuses = {
        persona: getattr(api.as_(persona), method)(where).status_code
        for persona in ("anonymous", "nobody", "stranger", "auditor", "member", "operator")
    }
    found = {
        "anonymous": 401,
        "nobody": 404,
        "stranger": 404,
        "auditor": 200 if method == "get" else 403,
        "member": 201 if path.endswith("trigger") else 200,
        "operator": {"trigger": 201, "cancel": 409}.get(path.rsplit("/", 1)[-1], 200),
    }
    assert statuses == found


def test_another_tenants_name_is_not_found(api: Any, world: World) -> None:
    body = {"tenant": "speech", "definition": definition(bash("a"))}
    assert api.member.post("workflows", body).status_code == 404
    assert api.auditor.post("workflows", {**body, "tenant": "vision"}).status_code == 403
    assert not Workflow.objects.exists()


def test_a_wrong_definition_names_every_field(api: Any, world: World) -> None:
    answer = push(api, bash("a", "b"), {**bash("b", "a"), "colour": "red"})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid_spec"
    assert {"tasks[0].upstream", "tasks[1].colour"} <= {error["field"] for error in problem["errors"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"definition": []}, "definition"),
        ({"definition": {}, "extra": 1}, "extra"),
        ({"tenant": "vision"}, "definition"),
    ],
)
def test_a_wrong_body_is_refused(api: Any, world: World, body: Any, field: str) -> None:
    answer = api.member.post("workflows", body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_a_body_above_the_limit_is_refused(api: Any, world: World, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10_000
    assert push(api, bash("a", script="x" * 20_000)).status_code == 413


def test_wrong_parameters_name_their_field(api: Any, world: World) -> None:
    pk = push(api, bash("a"), params={"properties": {"n": {"type": "integer"}}}).json()["id"]
    answer = api.member.post(f"workflows/{pk}/trigger", {"params": {"n": "three"}})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "params.n")


def test_a_dry_run_leaves_nothing(api: Any, world: World) -> None:
    assert push(api, query="?dry_run=1").json()["created"] is True
    assert not Workflow.objects.exists()
    pk = push(api).json()["id"]
    assert api.member.post(f"workflows/{pk}/trigger?dry_run=1").status_code == 201
    assert not Run.objects.exists()


def test_an_idempotency_key_makes_one_run(api: Any, world: World) -> None:
    pk = push(api).json()["id"]
    first, second = (
        api.member.post(f"workflows/{pk}/trigger", {}, Idempotency_Key="once").json()["id"] for _ in range(2)
    )
    assert first == second
    assert Run.objects.count() == 1


def test_filters(api: Any, world: World) -> None:
    run = start(world.vision, empty("a"), name="one")
    start(world.vision, bash("a"), name="two", schedule="@daily")
    start(world.speech, bash("a"), name="three")

    def names(path: str, persona: str = "operator") -> list[str]:
        rows = api.as_(persona).get(path).json()["results"]
        return [row.get("workflow_name", row.get("name")) for row in rows]

    assert names("workflows") == ["three", "two", "one"]
    assert names("workflows", "member") == ["two", "one"]
    assert names("workflows?tenant=speech") == ["three"]
    assert names("workflows?name=w&paused=false") == ["two"]
    assert names("runs?state=succeeded&state=failed") == ["one"]
    assert names(f"runs?workflow={run.workflow_id}") == ["one"]
    assert names("runs?tenant=vision&ordering=id") == ["one", "two"]
    assert names("runs?trigger=schedule") == []
    assert api.operator.get("runs?state=asleep").status_code == 422
    assert api.operator.get("runs?colour=red").status_code == 422
    assert names("runs?logical_after=2020-01-01T00:00:00%2B21:30&ordering=id") == ["one", "two", "three"]
    assert names("runs?logical_before=2020-01-01T00:00:00Z") == []
    assert api.operator.get("runs?logical_before=0001-01-01T00:00:00%2B10:00").status_code == 422


def test_a_logical_time_that_no_zone_could_show_is_refused(api: Any, world: World) -> None:
    pk = push(api).json()["id"]
    for absurd in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00"):
        answer = api.member.post(f"workflows/{pk}/trigger", {"logical_time": absurd})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "logical_time")


def test_pages_cost_the_same_however_much_there_is(api: Any, world: World, django_assert_max_num_queries: Any) -> None:
    client = api.member
    client.get("me")
    runs = [start(world.vision, *TASKS, name=f"w{number}") for number in range(6)]
    for number in range(3):
        commands.trigger(actor=SYSTEM, workflow_id=runs[number].workflow_id)
    step()
    for path in (
        "workflows",
        "runs",
        f"runs/{runs[0].pk}/tasks",
        f"workflows/{runs[0].workflow_id}/versions",
    ):
        with django_assert_max_num_queries(6):
            assert client.get(path).status_code == 200
    actor = world.actor("member")
    with django_assert_max_num_queries(4):
        queries.workflow_detail(actor, runs[0].workflow_id)
    with django_assert_max_num_queries(3):
        queries.run_detail(actor, runs[0].pk)
    with django_assert_max_num_queries(2):
        queries.run_graph(runs[0])
    with django_assert_max_num_queries(2):
        queries.run_grid(actor, runs[0].workflow)


def test_the_grid_has_runs_by_tasks(world: World) -> None:
    first = start(world.vision, bash("old"), bash("a"))
    end(first, "a")
    step()
    second = start(world.vision, bash("a"), bash("b", "a"))
    grid = queries.run_grid(world.actor("member"), second.workflow)
    assert [run.pk for run in grid.runs] == [first.pk, second.pk]
    assert grid.tasks == ["a", "b", "old"]
    assert {name: {run: state for run, (state, _) in cells.items()} for name, cells in grid.cells.items()} == {
        "a": {first.pk: "succeeded", second.pk: "queued"},
        "b": {second.pk: "waiting"},
        "old": {first.pk: "queued"},
    }


def test_live_topics_ask_the_policies(world: World) -> None:
    from apps.events.topics import may_watch

    run = start(world.vision, bash("a"))
    for topic in (f"run:{run.pk}", f"workflow:{run.workflow_id}"):
        assert [may_watch(world.actor(persona), topic) for persona in ("member", "auditor", "operator")] == [True] * 3
        assert [may_watch(world.actor(persona), topic) for persona in ("stranger", "nobody", "anonymous")] == [
            False
        ] * 3
    assert not may_watch(world.actor("operator"), "run")


def test_a_version_that_is_no_longer_accepted_is_refused_by_its_name(api: Any, world: World) -> None:
    """An older release took it: nothing of it runs, and whoever asks for it hears which version is wrong and why."""
    run = start(world.vision, bash("a"))
    workflow = Workflow.objects.select_related("current").get(pk=run.workflow_id)
    version = workflow.current
    assert version is not None
    version.definition["tasks"][0]["trigger_rule"] = "nope"
    version.save()
    plans.clear()
    asked = [
        api.member.post(f"workflows/{workflow.pk}/trigger", {}),
        api.member.get(f"runs/{run.pk}/graph"),
        api.member.post(f"runs/{run.pk}/clear", {}),
    ]
    for answer in asked:
        assert (answer.status_code, answer.json()["code"]) == (409, "version_not_accepted")
        assert "Version 1 of etl is no longer accepted: tasks[0].trigger_rule: " in answer.json()["detail"]
    assert workflow.runs.count() == 1
