"""Every page × every persona: nobody gets in, strangers learn nothing, members see what is theirs."""

from typing import Any

import pytest
from django.urls import URLPattern, reverse

from apps.console.urls import urlpatterns
from tests.personas import PERSONAS, Objects, World

from .conftest import People, fragment

# Pages that show the same frame to everybody who has signed in; their rows are limited by policies.
LISTS = {
    "overview",
    "palette",
    "nodes",
    "pools",
    "contributions",
    "regions",
    "queue",
    "what-if",
    "jobs",
    "job-submit",
    "workflows",
    "datasets",
    "services",
    "service-deploy",
    "slot-pools",
    "runs",
    "approvals",
    "backfills",
    "notifications",
    "quotas",
    "domains",
    "tenants",
    "events",
    "tokens",
}
# Pages of one object of the tenant vision: a stranger's answer is 404.
OF_VISION = {
    "artifact",
    "job",
    "log-find",
    "log-download",
    "workflow",
    "workflow-graph",
    "workflow-grid",
    "workflow-calendar",
    "workflow-code",
    "workflow-code-graph",
    "workflow-state",
    "run-state",
    "run",
    "run-timeline",
    "run-graph",
    "run-gantt",
    "run-task",
    "approval",
    "backfill",
    "dataset",
    "dataset-lineage",
    "service",
    "slot-pool",
    "destination",
    "tenant",
    "tenant-notifications",
    "workflow-notifications",
}
# Alpha lends its nodes to every domain, so that members of other tenants see them too.
LENT = {"node", "node-figure"}
# Forms, and who may open them; everybody else is told that they may not, or that there is nothing.
FORMS = {
    "pool-new": {"operator"},
    "pool-preview": {"operator"},
    "pool": {"operator"},
    "flavor-new": {"operator"},
    "flavor-preview": {"operator"},
    "flavor": {"operator"},
    "quota": {"operator"},
    "quota-new": {"operator"},
    "budget": {"operator"},
    "budget-new": {"operator", "provider", "admin"},
    "contribution-new": {"operator", "provider"},
    "contribution": {"operator", "provider"},
    "node-labels": {"operator", "provider"},
    "region-new": {"operator"},
    "region": {"operator"},
    "slot-pool-new": {"operator", "admin"},
    "slot-pool-edit": {"operator", "admin"},
    "domain-new": {"operator"},
    "tenant-new": {"operator"},
    "cluster-new": {"operator", "provider"},
    "cluster": {"operator", "provider"},
    "run-clear": {"operator", "admin", "member"},
    "run-note": {"operator", "admin", "member"},
    "backfill-new": {"operator", "admin", "member"},
    "destination-new": {"operator", "admin"},
}
# Of these, those of what is not there yet.
NEW = {"pool-preview", "flavor-preview"}
NEW |= {f"{noun}-new" for noun in ("pool", "flavor", "quota", "budget", "contribution", "region", "slot-pool")}
NEW |= {f"{noun}-new" for noun in ("domain", "tenant", "cluster", "destination")}
# Only POST: one request each in test_changes_are_refused.
CHANGES = {
    "tenant-switch",
    "join-token",
    "node-action",
    "job-action",
    "workflow-action",
    "workflow-state-action",
    "run-cancel",
    "run-mark",
    "backfill-action",
    "tenant-action",
    "token-revoke",
    "pool-delete",
    "flavor-delete",
    "contribution-withdraw",
    "region-forget",
    "quota-delete",
    "budget-delete",
    "dataset-update",
    "slot-pool-delete",
    "service-action",
    "destination-action",
    "delivery-again",
    "stored-action",
    "cluster-delete",
    "domain-action",
}
INSIDERS = ("operator", "admin", "member", "auditor")


def address(name: str, objects: Objects, **more: Any) -> str:
    """The page's address with the arguments that it takes."""
    known = {**objects, "name": "check" if name == "run-task" else "cpu", **more}
    pattern = next(item for item in urlpatterns if isinstance(item, URLPattern) and item.name == name)
    return reverse(f"console:{name}", kwargs={key: known[key] for key in pattern.pattern.converters})


def test_every_route_has_its_place() -> None:
    names = {item.name for item in urlpatterns}
    assert names == LISTS | OF_VISION | LENT | FORMS.keys() | CHANGES


@pytest.mark.parametrize("name", sorted(LISTS | OF_VISION | LENT))
def test_pages_by_persona(objects: Objects, people: People, name: str) -> None:
    path = address(name, objects)
    for persona in PERSONAS:
        answer = people.as_(persona).get(path)
        if answer.streaming:
            assert b"".join(answer.streaming_content) == (b"hello\n" if name == "log-download" else b"report")
        if persona == "anonymous":
            assert answer.status_code == 302, persona
            assert answer["Location"].startswith("/accounts/login/?next="), persona
        elif name in LISTS or persona in INSIDERS:
            assert answer.status_code == 200, persona
        elif name in OF_VISION or persona == "nobody":
            assert answer.status_code == 404, persona
        else:
            assert answer.status_code == 200, persona


@pytest.mark.parametrize("name", sorted(FORMS))
def test_forms_by_persona(world: World, objects: Objects, people: People, name: str) -> None:
    from apps.events.models import Event

    path = address(name, objects)
    for persona in PERSONAS:
        client = people.as_(persona)
        answer = client.get(path)
        if persona in FORMS[name]:
            assert answer.status_code == 200, persona
            continue
        assert answer.status_code in (302, 403, 404), persona
        assert answer.status_code != 302 or persona == "anonymous", persona
        before = Event.objects.count()
        refused = client.post(path, {"name": "mine", "cluster": world.cluster.name, "labels": "a=b", "weight": "5"})
        assert refused.status_code in (302, 403, 404, 405), persona
        assert Event.objects.count() == before, f"{persona} changed something"


@pytest.mark.parametrize("name", sorted(OF_VISION | LENT | (FORMS.keys() - NEW)))
def test_what_is_not_there(people: People, name: str) -> None:
    keys = ["artifact", "job", "workflow", "run", "dataset", "approval", "backfill", "node", "cluster", "pool"]
    keys += ["flavor", "quota", "budget", "contribution", "slot_pool", "service", "destination"]
    nowhere = {f"{key}_id": 2**62 for key in keys}
    path = address(name, {**nowhere, "slug": "no-such-tenant", "region": "no-such-region"})
    assert people.operator.get(path).status_code == 404


@pytest.mark.parametrize("persona", ["stranger", "nobody"])
def test_lists_tell_strangers_nothing(objects: Objects, people: People, persona: str) -> None:
    for name in ("jobs", "runs", "workflows", "events", "overview", "queue"):
        page = people.as_(persona).get(reverse(f"console:{name}")).content.decode()
        assert f'href="/jobs/{objects["job_id"]}/"' not in page, name
        assert f'href="/runs/{objects["run_id"]}/"' not in page, name
        assert f'href="/workflows/{objects["workflow_id"]}/"' not in page, name
    found = people.as_(persona).get(reverse("console:palette"), {"q": "train"}).content.decode()
    assert "train" not in found.replace("“train”", "")


CHANGE_ARGUMENTS = [("node-action", {"action": action}) for action in ("cordon", "uncordon", "drain", "remove")] + [
    *(("job-action", {"action": action}) for action in ("cancel", "hold", "release")),
    *(("workflow-action", {"action": action}) for action in ("trigger", "pause", "resume")),
    *(
        ("tenant-action", {"action": action})
        for action in ("add-member", "remove-member", "set-secret", "delete-secret", "suspend", "resume")
    ),
    *(("workflow-state-action", {"action": action}) for action in ("set", "delete")),
    ("run-cancel", {}),
    ("run-mark", {}),
    *(("backfill-action", {"action": action}) for action in ("pause", "resume", "cancel", "rerun")),
    ("token-revoke", {}),
    ("join-token", {}),
    ("pool-delete", {}),
    ("flavor-delete", {}),
    ("contribution-withdraw", {}),
    ("region-forget", {}),
    ("quota-delete", {}),
    ("budget-delete", {}),
    ("dataset-update", {}),
    ("slot-pool-delete", {}),
    *(("service-action", {"action": action}) for action in ("scale", "rollback", "stop", "remove")),
    *(("destination-action", {"action": action}) for action in ("test", "disable", "change", "delete", "subscribe")),
    ("delivery-again", {}),
    *(
        ("stored-action", {"action": action})
        for action in ("set-variable", "set-connection", "delete-variable", "delete-connection")
    ),
    ("cluster-delete", {}),
    ("domain-action", {"action": "add-provider"}),
    ("domain-action", {"action": "remove-provider"}),
]


@pytest.mark.parametrize(("name", "arguments"), CHANGE_ARGUMENTS)
def test_changes_are_refused(
    world: World, objects: Objects, people: People, name: str, arguments: dict[str, str]
) -> None:
    """A stranger, somebody without a role and a mere reader change nothing through the console."""
    from apps.events.models import Event

    path = address(name, objects, **arguments)
    body = {
        "cluster": world.cluster.name,
        "username": "nina",
        "role": "member",
        "membership": objects["membership_id"],
        "name": "key",
        "value": "1",
        "key": "cursor",
    }
    before = Event.objects.count()
    for persona in ("stranger", "nobody", "auditor", "anonymous"):
        answer = people.as_(persona).post(path, body)
        assert answer.status_code in (302, 404, 422), (persona, answer.status_code)
        assert Event.objects.count() == before, f"{persona} changed something"
    assert people.operator.get(path).status_code in (405, 404)


def test_an_unknown_action_is_not_there(objects: Objects, people: People) -> None:
    for noun in ("node", "job", "workflow", "tenant", "backfill", "destination"):
        name = f"{noun}-action"
        assert people.operator.post(address(name, objects, action="explode")).status_code == 404, name
    assert people.operator.get(f"/nodes/{objects['node_id']}/figures/secrets").status_code == 404


def test_a_fragment_sends_the_whole_page_to_the_sign_in(people: People) -> None:
    answer = fragment(people.anonymous, "/jobs/", "job-list")
    assert answer.status_code == 204
    assert answer["HX-Redirect"].startswith("/accounts/login/")


def test_forms_need_their_token(world: World) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(world.users["operator"], backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/tokens/", {"name": "x", "scopes": "read", "expires_at": "7"}).status_code == 403
