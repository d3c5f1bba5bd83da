"""Domains, tenants and clusters made from pages: who may, and faults beside their fields."""

import re

import pytest

from apps.fleet.models import Cluster
from apps.tenants.models import Domain, Membership, Tenant
from tests.personas import World

from .conftest import People


def fault(page: str, field: str) -> str:
    """What stands beside a field."""
    found = re.search(rf'id="e-{field}".*?<span>(.*?)</span>', page, re.S)
    assert found is not None, field
    return found[1]


def test_a_domain_a_tenant_and_a_cluster_are_made(world: World, people: People) -> None:
    operator = people.operator
    assert operator.post("/domains/new/", {"slug": "north-lab", "name": "North Lab"}).status_code == 302
    made = operator.post("/domains/tenants/new/", {"domain": "north-lab", "slug": "genomics", "name": ""})
    assert made["Location"] == "/tenants/genomics/"
    cluster = operator.post("/domains/clusters/new/", {"domain": "north-lab", "name": "rack-1", "region": "eu"})
    assert cluster.status_code == 302
    domain = Domain.objects.get(slug="north-lab")
    assert Tenant.objects.get(slug="genomics").domain == domain
    found = Cluster.objects.get(name="rack-1")
    assert (found.domain, found.kind, found.region) == (domain, "agents", "eu")
    page = operator.get("/domains/").content.decode()
    card = page[page.index(f'id="domain-{domain.pk}"') :]
    for text in ("North Lab", "genomics", "rack-1", "0 nodes"):
        assert text in card, text
    assert 'value="north-lab" selected' in operator.get("/domains/tenants/new/?domain=north-lab").content.decode()


@pytest.mark.parametrize(
    ("path", "values", "field", "words"),
    [
        ("/domains/new/", {"slug": "alpha"}, "slug", "There is a domain alpha already"),
        ("/domains/new/", {"slug": "North Lab"}, "slug", "not a valid name"),
        ("/domains/new/", {"slug": "x", "name": "n" * 201}, "name", "at most 200 characters"),
        ("/domains/tenants/new/", {"domain": "alpha", "slug": "vision"}, "slug", "There is a tenant vision already"),
        ("/domains/tenants/new/", {"domain": "nowhere", "slug": "x"}, "domain", "is not one of"),
        ("/domains/clusters/new/", {"domain": "alpha", "name": ""}, "name", "not a valid name"),
        ("/domains/clusters/new/", {"domain": "alpha", "name": "x", "region": "E U"}, "region", "not a valid name"),
    ],
)
def test_faults_stand_beside_their_fields(
    world: World, people: People, path: str, values: dict[str, str], field: str, words: str
) -> None:
    before = (Domain.objects.count(), Tenant.objects.count(), Cluster.objects.count())
    answer = people.operator.post(path, values)
    assert answer.status_code == 422
    assert words in fault(answer.content.decode(), field).replace("&#x27;", "'")
    assert (Domain.objects.count(), Tenant.objects.count(), Cluster.objects.count()) == before


def test_a_provider_makes_clusters_of_the_own_domain_only(world: World, people: People) -> None:
    form = people.provider.get("/domains/clusters/new/").content.decode()
    assert re.findall(r'<option value="([^"]+)"', form) == ["alpha"]
    refused = people.provider.post("/domains/clusters/new/", {"domain": "beta", "name": "mine"})
    assert refused.status_code == 422
    assert people.provider.post("/domains/clusters/new/", {"domain": "alpha", "name": "mine"}).status_code == 302
    assert people.member.get("/domains/clusters/new/").status_code == 403


def test_a_cluster_without_nodes_can_be_changed_and_deleted(world: World, people: People) -> None:
    people.operator.post("/domains/clusters/new/", {"domain": "alpha", "name": "spare"})
    spare = Cluster.objects.get(name="spare")
    base = f"/domains/clusters/{spare.pk}/"
    assert people.operator.post(base, {"region": "us-east"}).status_code == 302
    spare.refresh_from_db()
    assert spare.region == "us-east"
    assert 'data-testid="delete-cluster"' in people.operator.get(base).content.decode()
    assert people.operator.post(f"{base}delete").status_code == 302
    assert not Cluster.objects.filter(name="spare").exists()
    world.node()
    kept = people.operator.get(f"/domains/clusters/{world.cluster.pk}/").content.decode()
    assert 'data-testid="delete-cluster"' not in kept
    people.operator.post(f"/domains/clusters/{world.cluster.pk}/delete")
    assert Cluster.objects.filter(pk=world.cluster.pk).exists()


def test_providers_come_and_go(world: World, people: People) -> None:
    base = f"/domains/{world.alpha.pk}/"
    missing = people.operator.post(f"{base}add-provider", {"username": "nobody-there"})
    assert missing.status_code == 422
    assert "There is no user nobody-there" in missing.content.decode()
    name = world.users["member"].username
    assert people.operator.post(f"{base}add-provider", {"username": name}).status_code == 302
    roles = Membership.objects.filter(domain=world.alpha, role="provider", user__username=name)
    assert roles.exists()
    assert people.operator.post(f"{base}remove-provider", {"username": name}).status_code == 302
    assert not roles.exists()
