"""Pools, flavors, contributions and labels through their pages: what is saved, previewed and refused, and to whom."""

import re
from html import unescape
from typing import Any

import pytest
from django.http import QueryDict

from apps.console import fleet_forms
from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.fleet import commands as fleet
from apps.fleet.models import Contribution, Flavor, Pool
from tests.personas import GIB, World

from .conftest import People, fragment

CARD = {"index": 0, "model": "A100", "memory_bytes": 40 * GIB}


def shown(answer: Any) -> str:
    """The text of a page."""
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split()))


def fault(page: Any, name: str) -> str:
    """What is said beside the field, as text; "" where nothing is."""
    found = re.search(rf'id="e-{name}"[^>]*>(.*?)</p>', page.content.decode(), re.S)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", found[1]).split())) if found else ""


def labelled(world: World, name: str, **labels: str) -> None:
    node = world.node(name)
    fleet.set_labels(actor=SYSTEM, node_id=node.pk, labels=labels)


def test_a_pool_is_made_changed_and_deleted(world: World, people: People) -> None:
    operator = people.operator
    typed = {"name": "ssd", "description": "Fast disks", "clusters": "alpha-agents", "labels": "disk=ssd, nvme"}
    made = operator.post("/pools/new/", typed)
    pool = Pool.objects.get(name="ssd")
    assert made["Location"] == f"/pools/{pool.pk}/"
    assert pool.query == {"clusters": ["alpha-agents"], "labels": {"disk": ["ssd", "nvme"]}}

    page = operator.get(f"/pools/{pool.pk}/").content.decode()
    assert re.search(r'name="clusters" value="alpha-agents" checked', page)
    assert "disk=ssd,nvme</textarea>" in page
    changed = operator.post(f"/pools/{pool.pk}/", {"name": "other", "description": "", "trust": "2"})
    assert changed["Location"] == "/pools/"
    pool.refresh_from_db()
    assert (pool.name, pool.query, pool.description) == ("ssd", {"trust": 2}, "")

    assert operator.post(f"/pools/{pool.pk}/delete").status_code == 302
    assert not Pool.objects.filter(name="ssd").exists()


@pytest.mark.parametrize(
    ("typed", "field", "said"),
    [
        ({"name": "No Slug"}, "name", "lower-case"),
        ({"name": "default"}, "name", "There is a pool default already."),
        ({"name": "p", "labels": "zone"}, "labels", "'zone' is not key=value"),
        ({"name": "p", "labels": "zone=a\nzone=b"}, "labels", "zone is there twice"),
        ({"name": "p", "labels": "zo ne=a"}, "labels", "not a label key"),
        ({"name": "p", "trust": "101"}, "trust", "0 to 100"),
        ({"name": "p", "trust": "high"}, "trust", "'high' is not a whole number"),
        ({"name": "p", "description": "x" * 301}, "description", "at most 300"),
    ],
)
def test_a_refused_pool_keeps_what_was_typed(
    world: World, people: People, typed: dict[str, str], field: str, said: str
) -> None:
    page = people.operator.post("/pools/new/", {"regions": ["eu", "gone"], **typed})
    assert page.status_code == 422
    assert said in fault(page, field)
    text = page.content.decode()
    assert re.search(r'name="regions" value="gone" checked', text)
    assert all(line in text for line in typed[field].splitlines())
    assert Pool.objects.count() == 1


def test_the_preview_counts_what_the_query_takes_and_what_changes(world: World, people: People) -> None:
    labelled(world, "one", disk="ssd")
    labelled(world, "two", disk="hdd")
    world.node("three", gpus=[CARD])
    pool = fleet.create_pool(actor=SYSTEM, name="ssd", query={"labels": {"disk": ["ssd"]}})
    operator = people.operator

    def count(query: str) -> str:
        page = fragment(operator, f"/pools/preview/?{query}", "pool-preview")
        assert page["Cache-Control"] == "no-store"
        return shown(page)

    assert count("").startswith("3 nodes match")
    assert count("labels=disk%3Dssd").startswith("1 node matches")
    assert "GPUs 1" in count("gpu_models=A100")
    assert count("clusters=nowhere").startswith("0 nodes match")
    changed = count(f"pool={pool.pk}&labels=disk%3Dhdd")
    assert "1 comes in: two" in changed
    assert "1 leaves: one" in changed
    assert "'disk' is not key=value" in count("labels=disk")
    assert operator.get(f"/pools/preview/?pool={2**62}").status_code == 404
    # What is not lent counts nowhere.
    fleet.delete_contribution(actor=SYSTEM, contribution_id=world.cluster.contributions.get().pk)
    assert count("").startswith("0 nodes match")


def test_a_flavor_is_made_previewed_changed_and_deleted(world: World, people: People) -> None:
    operator = people.operator
    world.node("plain")
    world.node("carded", gpus=[CARD])
    path = f"/pools/{world.pool.pk}/flavors"
    taken = shown(fragment(operator, f"{path}/preview/?position=5", "flavor-preview"))
    assert "Flavors that are asked earlier take all 2 nodes." in taken
    first = fragment(operator, f"{path}/preview/?gpu_models=A100&position=0", "flavor-preview")
    assert shown(first).startswith("0 nodes match")  # The flavor `cpu` has the same position and is older.
    assert fault(operator.post(f"{path}/new/", {"name": "cpu"}), "name") == "There is a flavor cpu already."

    fleet.update_flavor(actor=SYSTEM, flavor_id=world.flavor.pk, position=1)
    made = operator.post(f"{path}/new/", {"name": "a100", "position": "0", "gpu_models": "A100"})
    assert made["Location"] == f"/pools/{world.pool.pk}/"
    flavor = Flavor.objects.get(name="a100")
    change = f"{path}/preview/?flavor={flavor.pk}&position=0"
    assert "1 comes in: plain" in shown(fragment(operator, change, "flavor-preview"))
    page = operator.post(f"/flavors/{flavor.pk}/", {"position": "-1"})
    assert page.status_code == 422
    assert "0 to 10000" in fault(page, "position")
    assert operator.post(f"/flavors/{flavor.pk}/", {"position": "3", "labels": "zone=a"}).status_code == 302
    flavor.refresh_from_db()
    assert (flavor.position, flavor.match) == (3, {"labels": {"zone": ["a"]}})
    assert operator.post(f"/flavors/{flavor.pk}/delete").status_code == 302
    assert not Flavor.objects.filter(pk=flavor.pk).exists()


TERMS = {
    "cluster": "alpha-agents",
    "share_percent": "50",
    "consumers": "beta, alpha",
    "trust": "3",
    "jurisdictions": "CH, EU",
    "price_per_cpu_hour": "0.25",
    "price_per_gpu_hour": "1.5",
    "starts_at": "2030-01-01T08:00",
    "ends_at": "2031-01-01T08:00",
    "notice": "2h",
    "timezone": "Europe/Zurich",
    "cap_cpu": "1500m",
    "cap_memory": "64Gi",
    "cap_gpu": "2",
}


def test_a_provider_lends_changes_the_terms_and_withdraws(world: World, people: People) -> None:
    provider = people.provider
    world.cluster.contributions.all().delete()
    assert "Nothing is lent yet" in shown(provider.get("/contributions/"))
    assert provider.post("/contributions/new/", TERMS).status_code == 302
    row = Contribution.objects.get()
    assert (row.share_percent, row.trust, row.notice_seconds) == (50, 3, 7200)
    assert (str(row.price_per_cpu_hour), str(row.price_per_gpu_hour)) == ("0.250000", "1.500000")
    assert row.starts_at is not None and row.starts_at.isoformat() == "2030-01-01T08:00:00+00:00"
    assert {domain.slug for domain in row.consumers.all()} == {"alpha", "beta"}
    assert row.jurisdictions == ["CH", "EU"]
    assert (row.cap_cpu_millicores, row.cap_memory_bytes, row.cap_gpu_milli) == (1500, 64 << 30, 2000)

    listed = shown(provider.get("/contributions/"))
    assert "Not yet" in listed
    assert "0.25 a core" in listed
    page = provider.get(f"/contributions/{row.pk}/").content.decode()
    again = dict(re.findall(r'name="(\w+)" type="[\w-]+" value="([^"]*)"', page))
    assert "at most 1.5 cpu, 64 GiB memory, 2 GPUs" in listed
    assert again == {name: value for name, value in TERMS.items() if name != "cluster"} | {"consumers": "alpha, beta"}

    assert provider.post(f"/contributions/{row.pk}/", {**again, "starts_at": "", "consumers": ""}).status_code == 302
    row.refresh_from_db()
    assert row.starts_at is None
    assert not row.consumers.exists()
    assert provider.post(f"/contributions/{row.pk}/withdraw").status_code == 302
    assert not Contribution.objects.exists()


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"share_percent": "0"}, "share_percent", "from 1 to 100"),
        ({"share_percent": "half"}, "share_percent", "'half' is not a whole number"),
        ({"consumers": "beta, gamma"}, "consumers", "There is no domain gamma."),
        ({"trust": "-1"}, "trust", "from 0 to 100"),
        ({"price_per_cpu_hour": "cheap"}, "price_per_cpu_hour", "'cheap' is not a price"),
        ({"price_per_cpu_hour": "NaN"}, "price_per_cpu_hour", "a price from 0"),
        ({"price_per_gpu_hour": "0.0000001"}, "price_per_gpu_hour", "more than six decimal places"),
        ({"starts_at": "tomorrow"}, "starts_at", "'tomorrow' is not a time"),
        ({"ends_at": "2029-01-01T00:00"}, "ends_at", "later"),
        ({"notice": "soon"}, "notice", "not a duration"),
        ({"cluster": "beta-agents"}, "cluster", ""),
        ({"timezone": "Europe/Bern"}, "timezone", "is not a time zone"),
        ({"cap_cpu": "many"}, "cap_cpu", "many"),
        ({"cap_memory": "-1Gi"}, "cap_memory", "-1Gi"),
    ],
)
def test_refused_terms_keep_what_was_typed(
    world: World, people: People, change: dict[str, str], field: str, said: str
) -> None:
    fleet.create_cluster(actor=SYSTEM, domain=world.beta, name="beta-agents")
    page = people.provider.post("/contributions/new/", {**TERMS, **change})
    assert page.status_code == 422
    assert said in fault(page, field)
    for name, value in {**TERMS, **change}.items():
        assert name == "cluster" or f'value="{value}"' in page.content.decode(), name
    assert Contribution.objects.count() == 1


def test_windows_are_edited_by_line(world: World, people: People) -> None:
    row = Contribution.objects.get()
    path = f"/contributions/{row.pk}/"
    typed = {**TERMS, "starts_at": "", "ends_at": "", "windows": "Mon, tue 18:00-08:00\r\n\r\nsat 00:00-24:00\r\n"}
    assert people.provider.post(path, typed).status_code == 302
    row.refresh_from_db()
    assert row.windows == [
        {"days": ["mon", "tue"], "from": "18:00", "to": "08:00"},
        {"days": ["sat"], "from": "00:00", "to": "24:00"},
    ]
    assert "mon,tue 18:00-08:00\nsat 00:00-24:00</textarea>" in people.provider.get(path).content.decode()
    assert "mon,tue 18:00-08:00" in shown(people.provider.get("/contributions/"))
    for windows, said in (
        ("mon,someday 18:00-08:00", "'someday' is not a day"),
        ("mon 18:00-18:00", "the same as `from`"),
        ("mon 25:00-08:00", "'25:00' is not a time"),
        ("mon", "'mon' is not a window"),
    ):
        page = people.provider.post(path, {**typed, "windows": windows})
        assert page.status_code == 422
        assert said in fault(page, "windows")


def test_labels_and_taints_are_edited_by_line(world: World, people: People) -> None:
    node = world.node()
    path = f"/nodes/{node.pk}/labels/"
    typed = {"labels": "zone=a\r\n\r\n empty =\r\n", "taints": "dedicated=vision:NoSchedule\nbroken:NoExecute\nplain"}
    assert people.provider.post(path, typed)["Location"] == f"/nodes/{node.pk}/"
    node.refresh_from_db()
    assert node.labels == {"zone": "a", "empty": ""}
    assert node.taints == [
        {"key": "dedicated", "value": "vision", "effect": "NoSchedule"},
        {"key": "broken", "value": "", "effect": "NoExecute"},
        {"key": "plain", "value": "", "effect": "NoSchedule"},
    ]
    page = people.provider.get(path).content.decode()
    assert "dedicated=vision:NoSchedule\nbroken:NoExecute\nplain:NoSchedule</textarea>" in page

    refused = people.provider.post(path, {"labels": "zone=b\nno equals", "taints": "k:Maybe"})
    assert refused.status_code == 422
    assert "'no equals' is not key=value." in fault(refused, "labels")
    assert "k:Maybe</textarea>" in refused.content.decode()
    assert "is not an effect" in fault(people.provider.post(path, {"taints": "k:Maybe"}), "taints")
    node.refresh_from_db()
    assert node.labels == {"zone": "a", "empty": ""}


@pytest.mark.parametrize(
    ("path", "link", "who"),
    [
        ("/pools/", "/pools/new/", {"operator"}),
        ("/pools/", "/pools/{pool}/", {"operator"}),
        ("/contributions/", "/contributions/new/", {"operator", "provider"}),
        ("/contributions/", "/contributions/{terms}/", {"operator", "provider"}),
        ("/quotas/", "/quotas/{quota}/", {"operator"}),
        ("/tenants/vision/", "/quotas/{quota}/", {"operator"}),
        ("/nodes/{node}/", "/nodes/{node}/labels/", {"operator", "provider"}),
        ("/nodes/{node}/", "/nodes/{node}/cordon", {"operator", "provider"}),
        ("/nodes/{node}/", "/nodes/{node}/drain", {"operator", "provider"}),
        ("/nodes/{node}/", "/nodes/{node}/remove", {"operator", "provider"}),
    ],
)
def test_who_sees_the_way_to_a_change(world: World, people: People, path: str, link: str, who: set[str]) -> None:
    ids = {
        "pool": world.pool.pk,
        "terms": world.cluster.contributions.get().pk,
        "quota": world.vision_quota.pk,
        "node": world.node().pk,
    }
    path, link = path.format(**ids), link.format(**ids)
    personas = ("operator", "provider", "admin", "member", "auditor", "stranger")
    pages = {persona: people.as_(persona).get(path).content.decode() for persona in personas}
    assert {persona for persona, page in pages.items() if f'"{link}"' in page} == who


@pytest.mark.parametrize("action", ["drain", "remove"])
def test_what_harms_a_node_is_asked_back(world: World, people: People, action: str) -> None:
    node = world.node()
    page = people.operator.get(f"/nodes/{node.pk}/").content.decode()
    form = re.search(rf'<form[^>]*action="/nodes/{node.pk}/{action}"[^>]*>', page)
    assert form is not None
    assert 'data-behavior="confirm"' in form[0]
    assert f"{action.capitalize()} {node.name}?" in form[0]


def test_no_field_holds_what_the_database_cannot() -> None:
    typed = QueryDict(mutable=True)
    typed.setlist("clusters", ["a\x00", "  "])
    typed["labels"] = "zone=\x00b"
    assert fleet_forms.pool_query(typed) == {"clusters": ["a"], "labels": {"zone": ["b"]}}
    with pytest.raises(Invalid):
        fleet_forms.pool_query({"labels": "\x00="})
