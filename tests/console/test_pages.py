"""What pages do: live parts, paging, filters, the theme, forms with their errors beside the fields."""

import re

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.execution.commands import intake
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.tenants.models import ApiToken
from apps.workflows import commands as workflows
from rmctl.agent.protocol import Checkpoint
from tests import work
from tests.api.objects import DEFINITION, make_job, make_run
from tests.personas import Objects, World

from .conftest import People, fragment

PARTS = [
    ("/", "overview-figures"),
    ("/", "overview-fleet"),
    ("/", "overview-recent"),
    ("/nodes/", "node-list"),
    ("/nodes/{node_id}/", "node-head"),
    ("/nodes/{node_id}/", "node-body"),
    ("/pools/", "pool-list"),
    ("/contributions/", "contribution-list"),
    ("/queue/", "queue-list"),
    ("/jobs/", "job-list"),
    ("/jobs/{job_id}/", "job-head"),
    ("/jobs/{job_id}/", "job-body"),
    ("/jobs/{job_id}/", "job-side"),
    ("/workflows/", "workflow-list"),
    ("/workflows/{workflow_id}/", "workflow-head"),
    ("/workflows/{workflow_id}/", "workflow-runs"),
    ("/runs/", "run-list"),
    ("/runs/{run_id}/", "run-head"),
    ("/runs/{run_id}/", "run-tasks"),
    ("/runs/{run_id}/gantt/", "run-head"),
    ("/runs/{run_id}/state/", "state"),
    ("/workflows/{workflow_id}/calendar/", "calendar"),
    ("/workflows/{workflow_id}/code/", "workflow-head"),
    ("/quotas/", "quota-tree"),
    ("/quotas/{quota_id}/", "quota-limits"),
    ("/domains/", "domain-list"),
    ("/events/", "event-list"),
]


def words(html: str) -> str:
    """The text of some HTML, without what changes from one second or request to the next."""
    ageing = r'<details class="fold" data-testid="order">.*?</details>'  # Its points grow while the job waits.
    html = re.sub(rf"<time[^>]*>.*?</time>|<input type=\"hidden\"[^>]*>|{ageing}", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.parametrize(("path", "target"), PARTS)
def test_a_live_part_is_the_part_of_the_page(objects: Objects, people: People, path: str, target: str) -> None:
    client = people.operator
    path = path.format(**objects)
    part = fragment(client, path, target)
    assert part.status_code == 200
    assert part["Cache-Control"] == "no-store"
    assert "<html" not in part.content.decode()
    page = client.get(path).content.decode()
    assert f'id="{target}"' in page
    assert 'hx-trigger="live"' in page
    assert words(part.content.decode()) in words(page)


def test_every_live_topic_may_be_watched(world: World, objects: Objects, people: People) -> None:
    from apps.events.topics import may_watch

    for persona in ("operator", "member"):
        for path in sorted({path.format(**objects) for path, _ in PARTS}):
            answer = people.as_(persona).get(path)
            if answer.status_code == 403:  # Not theirs to open: tests/console/test_access.py says whose.
                continue
            page = answer.content.decode()
            topics = {topic for found in re.findall(r'data-live-topics="([^"]*)"', page) for topic in found.split()}
            refused = {topic for topic in topics if not may_watch(world.actor(persona), topic)}
            assert not refused, f"{persona} {path}"
            assert topics, path


@pytest.mark.parametrize("path", ["/", "/nodes/"])
def test_samples_come_live_to_those_who_may_watch_them(world: World, people: People, path: str) -> None:
    world.node()
    topic = f"telemetry:{world.cluster.pk}"
    for persona, live in (("operator", True), ("provider", True), ("member", False)):
        assert (topic in people.as_(persona).get(path).content.decode()) is live, persona


@pytest.mark.parametrize("path", ["/jobs/", "/runs/"])
def test_the_state_is_a_field_of_the_filters(people: People, path: str) -> None:
    """One form holds all of them, so that a change of one sends what was typed into the others."""
    page = people.member.get(path, {"state": "failed", "q": "some words"}).content.decode()
    form = page[page.index('<form class="stack" role="search"') :]
    form = form[: form.index("</form>")]
    assert re.search(r'<input[^>]*name="state" value="failed" checked>', form)
    assert 'name="q" value="some words"' in form


def test_a_page_restored_from_the_history_has_its_frame(people: People) -> None:
    """htmx asks for a whole page then, although it asks."""
    headers = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert 'href="/nodes/"' in people.member.get("/jobs/?q=x", headers=headers).content.decode()


def test_the_policy_lets_no_script_in(people: People) -> None:
    policy = people.member.get("/")["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


@pytest.mark.parametrize(
    ("cookie", "rendered"), [("dark", "dark"), ("light", "light"), ("system", None), ('"><b', None)]
)
def test_the_server_renders_the_chosen_theme(people: People, cookie: str, rendered: str | None) -> None:
    client = people.member
    client.cookies["theme"] = cookie
    page = client.get("/").content.decode()
    found = re.search(r'<html lang="en"(?: data-theme="(\w+)")?>', page)
    assert found is not None
    assert found[1] == rendered


def test_lists_are_paged_by_id(world: World, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.console.pages.page_of.__defaults__", (3,))
    jobs = [make_job(world, f"job-{number}").pk for number in range(8)]

    def shown(path: str) -> tuple[list[int], dict[str, str]]:
        page = people.member.get(path).content.decode()
        links = {label: link.replace("&amp;", "&") for link, label in PAGER.findall(page)}
        return [int(pk) for pk in re.findall(r'id="job-(\d+)"', page)], links

    first, links = shown("/jobs/?q=job")
    assert first == jobs[:4:-1]
    assert set(links) == {"Older"}
    second, links = shown(f"/jobs/{links['Older']}")
    assert second == jobs[4:1:-1]
    last, links = shown(f"/jobs/{links['Older']}")
    assert last == jobs[1::-1]
    assert set(links) == {"Newer"}
    assert shown(f"/jobs/{links['Newer']}")[0] == second


PAGER = re.compile(r'<a class="button button--s" href="([^"]+)">(?:<svg.*?</svg>)?(Older|Newer)', re.S)


@pytest.mark.parametrize("query", ["state=flying", "before=x", "before=-1", "after=99999999999999999999", "owner=you"])
def test_a_query_that_cannot_be_read_is_refused(people: People, query: str) -> None:
    assert people.member.get(f"/jobs/?{query}").status_code == 400


def test_filters_that_were_left_empty_do_not_count(world: World, people: People) -> None:
    world.join("lonely")
    page = fragment(people.operator, "/nodes/?name=lone&state=&cluster=", "node-list")
    assert page.status_code == 200
    assert "lonely" in page.content.decode()
    assert people.operator.get("/nodes/?state=flying").status_code == 400
    assert people.operator.get("/events/?verb=&subject=%20").status_code == 200
    assert people.operator.get("/events/?subject=job:x").status_code == 400


def test_lists_follow_the_chosen_tenant(world: World, people: People) -> None:
    client = people.operator
    mine = make_job(world, "job-of-vision")
    other = work.submit(world, tenant=world.speech)
    assert client.post("/tenant/", {"tenant": "vision", "next": "/jobs/"})["Location"] == "/jobs/"
    page = client.get("/jobs/").content.decode()
    assert f"/jobs/{mine.pk}/" in page
    assert f"/jobs/{other.pk}/" not in page
    client.post("/tenant/", {"tenant": ""})
    assert f"/jobs/{other.pk}/" in client.get("/jobs/").content.decode()
    assert people.member.post("/tenant/", {"tenant": "speech"}).status_code == 404


def test_no_form_leads_to_another_site(people: People) -> None:
    answer = people.member.post("/tenant/", {"tenant": "", "next": "https://example.org/"})
    assert answer["Location"] == "/"


def error_of(page: str, name: str) -> str | None:
    """What stands beside a field."""
    found = re.search(rf'id="e-{name}".*?<span>(.*?)</span>', page, re.S)
    return found[1] if found else None


def test_a_job_is_submitted_by_form(world: World, people: People) -> None:
    world.node()
    body = {
        "name": "hello",
        "tenant": "vision",
        "kind": "command",
        "command": "echo 'two words'",
        "cpu": "500m",
        "memory": "64Mi",
        "env": "A=b=c\n",
        "labels": "",
        "retries": "2",
    }
    answer = people.member.post("/jobs/submit/", body)
    job = Job.objects.get()
    assert answer["Location"] == f"/jobs/{job.pk}/"
    group = job.spec["groups"][0]
    assert group["command"] == ["echo", "two words"]
    assert group["env"] == {"A": "b=c"}
    assert group["resources"]["cpu_millicores"] == 500
    assert job.spec["retries"]["limit"] == 2
    assert job.owner == world.users["member"]
    again = people.member.get(f"/jobs/submit/?from={job.pk}").content.decode()
    assert 'value="hello"' in again
    assert "two words" in again


def test_each_fault_of_a_job_stands_beside_its_field(world: World, people: People) -> None:
    world.node()
    body = {"name": "x", "tenant": "vision", "kind": "script", "script": "", "cpu": "-1", "memory": "lots"}
    answer = people.member.post("/jobs/submit/", body)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert Job.objects.count() == 0
    for name in ("cpu", "memory", "script"):
        assert error_of(page, name), name
    assert error_of(page, "name") is None
    assert 'value="lots"' in page
    unread = people.member.post("/jobs/submit/", {**body, "kind": "command", "command": "echo 'x", "count": "many"})
    assert "split" in str(error_of(unread.content.decode(), "command"))
    assert "whole number" in str(error_of(unread.content.decode(), "count"))


def test_a_job_that_can_never_start_is_refused_in_words(world: World, people: People) -> None:
    world.node()
    body = {"tenant": "vision", "kind": "script", "script": "true", "cpu": "9000"}
    answer = people.member.post("/jobs/submit/", body)
    assert answer.status_code == 422
    assert 'data-testid="form-error"' in answer.content.decode()
    assert Job.objects.count() == 0


def test_a_job_is_held_released_and_cancelled(world: World, people: People) -> None:
    job = make_job(world)
    client = people.member
    for action, state, held in (
        ("hold", "pending", True),
        ("release", "pending", False),
        ("cancel", "cancelled", False),
    ):
        assert client.post(f"/jobs/{job.pk}/{action}")["Location"] == f"/jobs/{job.pk}/"
        job = work.fresh(job)
        assert (job.state, job.held) == (state, held)
    # Once more: a refusal is a message on the page that one came from.
    answer = client.post(
        f"/jobs/{job.pk}/cancel", headers={"Referer": f"http://testserver/jobs/{job.pk}/"}, follow=True
    )
    assert "has cancelled already" in answer.content.decode()


def test_why_a_job_waits(world: World, people: People) -> None:
    work.simulated_node(world, cpu=1000)
    work.submit(world, cpu="1")
    blocked = work.submit(world, cpu="1")
    work.cycle()
    page = people.member.get(f"/jobs/{blocked.pk}/").content.decode()
    assert "Waiting for free capacity" in page
    assert 'class="funnel"' in page
    queue = people.member.get("/queue/").content.decode()
    assert f"/jobs/{blocked.pk}/" in queue
    assert "Waiting for free capacity" in queue
    assert f"/jobs/{blocked.pk}/" not in people.member.get("/queue/?reason=held").content.decode()


def test_a_job_says_when_it_last_wrote_a_checkpoint(world: World, people: People) -> None:
    work.simulated_node(world)
    job = work.granted(world)
    (member,) = work.members(job)
    work.report(member, "started")
    assert "last checkpoint" not in words(people.member.get(f"/jobs/{job.pk}/").content.decode())

    intake.checkpoints([(member.node_id, Checkpoint(member.pk, 1, timezone.now().timestamp()))])

    assert "last checkpoint" in words(people.member.get(f"/jobs/{job.pk}/").content.decode())
    (attempt,) = people.member.get(f"/api/v1/jobs/{job.pk}/attempts").json()["results"]
    assert attempt["placements"][0]["checkpoint_at"] is not None


def test_when_a_waiting_job_starts_and_what_orders_it(world: World, people: People) -> None:
    work.simulated_node(world, cpu=1000)
    work.submit(world, cpu="1", time_limit="2h")
    work.cycle()
    blocked = work.submit(world, cpu="1")
    held = work.submit(world, cpu="1")
    jobs.hold(actor=SYSTEM, job_id=held.pk)
    work.cycle()
    page = people.member.get(f"/jobs/{blocked.pk}/").content.decode()
    assert "As likely as not by" in page and "in 1 h" in page
    assert "A start is reserved for it" in page
    assert "by the time limit" in page
    assert "Its place in the queue: 1" in page and "10 × log2(1 + " in page
    assert "Not known: it is on hold" in people.member.get(f"/jobs/{held.pk}/").content.decode()
    queue = people.member.get("/queue/").content.decode()
    assert "Estimated start" in queue and "reserved: <time" in queue
    assert "not known" in queue  # Of the held one.


def test_a_run_is_triggered_with_parameters(world: World, people: People) -> None:
    schema = {"type": "object", "properties": {"models": {"type": "integer", "default": 5, "maximum": 9}}}
    pushed = workflows.push(
        actor=world.actor("member"), tenant=world.vision, definition={**DEFINITION, "params": schema}
    )
    path = f"/workflows/{pushed.workflow.pk}"
    client = people.member
    assert 'value="5"' in client.get(f"{path}/").content.decode()
    for wrong in ("12", "many"):
        refused = client.post(f"{path}/trigger", {"models": wrong})
        assert refused.status_code == 422
        assert error_of(refused.content.decode(), "models")
    assert pushed.workflow.runs.count() == 0
    client.post(f"{path}/trigger", {"models": "7", "note": "by hand"})
    run = pushed.workflow.runs.get()
    assert (run.params, run.note) == ({"models": 7}, "by hand")
    assert client.post(f"/runs/{run.pk}/cancel")["Location"] == f"/runs/{run.pk}/"
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_the_graph_of_a_run(world: World, people: People) -> None:
    run = make_run(world)
    graph = people.member.get(f"/runs/{run.pk}/graph").json()
    assert graph["edges"] == []
    assert [(task["id"], task["state"], task["width"]) for task in graph["tasks"]] == [("check", "waiting", None)]
    panel = people.member.get(graph["tasks"][0]["panel"])
    assert "It waits for the tasks before it." in panel.content.decode()


def test_a_token_is_shown_once(world: World, people: People) -> None:
    client = people.member
    answer = client.post("/tokens/", {"name": "ci", "scopes": "read", "expires_at": "7"})
    token = re.search(r'data-testid="token">(rmp_[^<]+)<', answer.content.decode())
    assert token is not None
    assert answer["Cache-Control"] == "no-store"
    assert token[1] not in client.get("/tokens/").content.decode()
    assert Client().get("/api/v1/me", headers={"Authorization": f"Bearer {token[1]}"}).status_code == 200
    row = ApiToken.objects.get(name="ci")
    client.post(f"/tokens/{row.pk}/revoke")
    row.refresh_from_db()
    assert row.revoked_at is not None
    assert row.revoked_at <= timezone.now()
    refused = client.post("/tokens/", {"name": "", "scopes": "read", "expires_at": "7"})
    assert refused.status_code == 422
    assert error_of(refused.content.decode(), "name")


def test_members_and_secrets_of_a_tenant(world: World, people: People) -> None:
    client = people.admin
    path = "/tenants/vision"
    client.post(f"{path}/add-member", {"username": "nina", "role": "member"})
    assert world.actor("nobody").tenant_roles == {world.vision.pk: "member"}
    refused = client.post(f"{path}/add-member", {"username": "who", "role": "member"})
    assert refused.status_code == 422
    assert error_of(refused.content.decode(), "username") == "There is no user who."
    client.post(f"{path}/set-secret", {"name": "hub", "value": "s3cret-value"})
    page = client.get(f"{path}/").content.decode()
    assert "hub" in page
    assert "s3cret-value" not in page
    refused = client.post(f"{path}/set-secret", {"name": "9", "value": "s3cret-value"})
    assert error_of(refused.content.decode(), "name")
    assert "s3cret-value" not in refused.content.decode()
    client.post(f"{path}/delete-secret", {"name": "hub"})
    assert "hub" not in client.get(f"{path}/").content.decode().replace("hub-token", "")


def test_a_join_token_is_shown_with_its_command(world: World, people: People) -> None:
    answer = people.provider.post("/nodes/join/", {"cluster": world.cluster.name})
    assert re.search(r"rmctl agent join http://testserver --token rmj_\w+", answer.content.decode())
    assert answer["Cache-Control"] == "no-store"


def test_an_artifact_has_no_right_of_the_portal(objects: Objects, people: People) -> None:
    answer = people.member.get(f"/artifacts/{objects['artifact_id']}/")
    assert b"".join(answer.streaming_content) == b"report"
    policy = answer["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy


def test_the_first_run_says_what_to_do(people: People, world: World) -> None:
    page = people.operator.get("/").content.decode()
    for command in ("rmctl login", "rmctl agent join", "rmctl run"):
        assert command in page
    world.node()
    make_job(world)
    assert "rmctl agent join" not in people.operator.get("/").content.decode()


def test_sign_in_and_sign_out(world: World, redis_empty: None) -> None:
    client = Client()
    page = client.get("/accounts/login/?next=/jobs/").content.decode()
    assert 'name="next" value="/jobs/"' in page
    wrong = client.post("/accounts/login/", {"login": "max", "password": "wrong"})
    assert 'data-testid="form-error"' in wrong.content.decode()
    right = client.post("/accounts/login/", {"login": "max", "password": "max-password-1", "next": "/jobs/"})
    assert right["Location"] == "/jobs/"
    client.post("/accounts/logout/")
    assert client.get("/jobs/").status_code == 302


def test_errors_have_pages_of_their_own(people: People) -> None:
    missing = people.member.get("/no/such/page/")
    assert missing.status_code == 404
    assert "There is nothing here" in missing.content.decode()


def test_a_page_says_so_when_the_database_is_away(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OperationalError("connection refused")

    client = people.member
    client.raise_request_exception = False
    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refuse)
    page, answer = client.get("/"), client.get("/api/v1/jobs")
    monkeypatch.undo()
    assert page.status_code == 503
    assert "The database does not answer" in page.content.decode()
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/accounts/password/change/", "/accounts/3rdparty/", "/accounts/logout/"])
def test_pages_of_the_account_look_like_ours(people: People, path: str) -> None:
    answer = people.member.get(path)
    assert answer.status_code == 200
    assert 'class="lone"' in answer.content.decode()


def test_a_job_says_what_it_asks_of_nodes(world: World, people: People) -> None:
    work.simulated_node(world, labels={"rack": "a"}, system={"arch": "x86_64"})
    require = {"architectures": ["x86_64"], "max_price": 2.5, "nodes": [{"label": "rack", "operator": "Exists"}]}
    together = {"levels": ["zone", "rack"], "constraint": "preferred"}
    held = work.submit(world, intent={"require": {**require, "nodes": []}, "apart": {"most": 2}})
    page = people.member.get(f"/jobs/{held.pk}/").content.decode()
    assert "x86_64" in page and "2.5 an hour and member" in page and "over node, at most 2 in each" in page
    work.simulated_node(world, "sim-2", labels={"rack": "a", "zone": "z"}, system={"arch": "x86_64"})
    near = work.submit(world, intent={"require": require, "together": together})
    page = people.member.get(f"/jobs/{near.pk}/").content.decode()
    assert "preferred in one rack" in page and "<dt>rack</dt><dd>Exists" in page


GRAPHS = (
    "/workflows/{workflow_id}/graph", "/workflows/{workflow_id}/code/graph", "/runs/{run_id}/graph",
    "/datasets/{dataset_id}/lineage",
)  # fmt: skip


@pytest.mark.parametrize("path", GRAPHS)
def test_a_graph_has_what_the_page_draws(objects: Objects, people: People, path: str) -> None:
    graph = people.member.get(path.format(**objects)).json()
    assert graph.keys() == {"tasks", "edges", "groups", "path"}
    assert graph["tasks"]
    needed = {"id", "label", "sub", "state", "width", "counts", "panel", "parent"}
    assert all(needed <= task.keys() for task in graph["tasks"])


@pytest.mark.parametrize("view", ["", "calendar/", "code/"])
def test_each_page_of_a_workflow_says_what_it_waits_for(world: World, people: People, view: str) -> None:
    definition = {"schema": 1, "name": "waits", "datasets": "s3://a/b", "tasks": DEFINITION["tasks"]}
    made = workflows.push(actor=world.actor("member"), tenant=world.vision, definition=definition).workflow
    page = people.member.get(f"/workflows/{made.pk}/{view}").content.decode()
    assert "triggered by datasets" in page
    assert 'data-testid="waiting"' in page
