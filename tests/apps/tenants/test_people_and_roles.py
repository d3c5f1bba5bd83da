"""Operators make domains, tenants and accounts; admins run their tenant; nobody reaches further."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, Unauthenticated
from apps.events.models import Event
from apps.tenants import commands, queries
from apps.tenants.models import Membership, Role
from tests.personas import World, make_user


def test_only_operators_make_domains_tenants_and_accounts(world: World) -> None:
    for persona in ("provider", "admin", "member", "auditor", "stranger", "nobody", "anonymous"):
        actor = world.actor(persona)
        for call in (
            lambda: commands.create_domain(actor=actor, slug="x"),  # noqa: B023
            lambda: commands.create_tenant(actor=actor, domain=world.alpha, slug="x"),  # noqa: B023
            lambda: commands.create_user(actor=actor, username="x", password=None),  # noqa: B023
            lambda: commands.set_tenant_suspended(
                actor=actor,  # noqa: B023
                tenant_id=world.vision.pk,
                suspended=True,
            ),
        ):
            with pytest.raises((Forbidden, NotFound)):
                call()
    operator = world.actor("operator")
    domain = commands.create_domain(actor=operator, slug="x")
    assert commands.create_tenant(actor=operator, domain=domain, slug="y").domain == domain
    with pytest.raises(Conflict):
        commands.create_tenant(actor=operator, domain=domain, slug="y")


@pytest.mark.parametrize("slug", ["", "A", "a_b", "-a", "a-", "a" * 64, "a\n", "ä"])
def test_slugs_are_checked(world: World, slug: str) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.create_domain(actor=SYSTEM, slug=slug)
    assert refusal.value.errors[0]["field"] == "slug"


def test_an_admin_gives_and_takes_roles_in_the_own_tenant_only(world: World) -> None:
    make_user("new")
    admin = world.actor("admin")
    membership = commands.add_member(actor=admin, username="new", role="member", tenant=world.vision)
    again = commands.add_member(actor=admin, username="new", role="member", tenant=world.vision)
    assert membership == again
    assert Event.objects.filter(verb="member.added").count() == 1
    with pytest.raises(Forbidden):
        commands.add_member(actor=admin, username="new", role="member", tenant=world.speech)
    with pytest.raises(Forbidden):
        commands.add_member(actor=admin, username="new", role="operator")
    with pytest.raises(NotFound):
        commands.remove_member(actor=world.actor("stranger"), membership_id=membership.pk)
    with pytest.raises(Forbidden):
        commands.remove_member(actor=world.actor("member"), membership_id=membership.pk)
    commands.remove_member(actor=admin, membership_id=membership.pk)
    assert not Membership.objects.filter(user__username="new").exists()


@pytest.mark.parametrize(
    ("role", "where"),
    [("operator", "tenant"), ("provider", "tenant"), ("admin", "domain"), ("member", "nowhere"), ("king", "tenant")],
)
def test_roles_go_with_their_place(world: World, role: str, where: str) -> None:
    place: dict[str, Any] = {"tenant": {"tenant": world.vision}, "domain": {"domain": world.alpha}}.get(where, {})
    with pytest.raises(Invalid):
        commands.add_member(actor=SYSTEM, username="max", role=role, **place)


def test_the_last_operator_stays(world: World) -> None:
    last = Membership.objects.get(role=Role.OPERATOR)
    with pytest.raises(Conflict) as refusal:
        commands.remove_member(actor=world.actor("operator"), membership_id=last.pk)
    assert refusal.value.code == "last_operator"
    commands.add_member(actor=SYSTEM, username="ada", role="operator")
    commands.remove_member(actor=world.actor("operator"), membership_id=last.pk)
    assert not world.actor("operator").operator


def test_signing_in(world: World) -> None:
    assert commands.sign_in(username="max", password="max-password-1").get_username() == "max"
    user = world.users["member"]
    for name, password in (("max", "wrong"), ("nemo", "max-password-1"), ("max", "")):
        with pytest.raises(Unauthenticated):
            commands.sign_in(username=name, password=password)
    user.is_active = False
    user.save(update_fields=["is_active"])
    with pytest.raises(Unauthenticated):
        commands.sign_in(username="max", password="max-password-1")
    assert world.actor("member").user_id is None


@pytest.mark.parametrize("password", ["short", "1234567890", "password123", "max.mustermann"])
def test_weak_passwords_are_refused(world: World, password: str) -> None:
    with pytest.raises(Invalid):
        commands.create_user(actor=SYSTEM, username="max.mustermann", password=password)


def test_the_strongest_of_several_roles_counts(world: World) -> None:
    commands.add_member(actor=SYSTEM, username="max", role="auditor", tenant=world.vision)
    assert world.actor("member").tenant_roles == {world.vision.pk: "member"}
    commands.add_member(actor=SYSTEM, username="max", role="admin", tenant=world.vision)
    assert world.actor("member").tenant_roles == {world.vision.pk: "admin"}


def test_lists_show_what_is_ones_own(world: World) -> None:
    seen = {
        persona: {tenant.slug for tenant in queries.list_tenants(world.actor(persona))}
        for persona in ("operator", "admin", "member", "auditor", "stranger", "nobody", "anonymous")
    }
    assert seen == {
        "operator": {"vision", "speech"},
        "admin": {"vision"},
        "member": {"vision"},
        "auditor": {"vision"},
        "stranger": {"speech"},
        "nobody": set(),
        "anonymous": set(),
    }


def test_secrets_are_written_by_admins_and_read_by_nobody(world: World, api: Any) -> None:
    client = api.admin
    assert client.post("tenants/vision/secrets", {"name": "KEY", "value": "s3cret"}).status_code == 201
    listed = client.get("tenants/vision/secrets")
    assert [row["name"] for row in listed.json()["results"]] == ["KEY"]
    assert b"s3cret" not in listed.content
    assert api.member.post("tenants/vision/secrets", {"name": "KEY", "value": "x"}).status_code == 403
    assert api.stranger.get("tenants/vision/secrets").status_code == 404
    assert queries.secret_values(world.vision.pk, {"KEY", "OTHER"}) == {"KEY": "s3cret"}
    assert "s3cret" not in str(list(Event.objects.values_list("facts", flat=True)))
    assert client.delete("tenants/vision/secrets/KEY").status_code == 204
    assert queries.secret_values(world.vision.pk, {"KEY"}) == {}


@pytest.mark.parametrize(("name", "value"), [("1a", "x"), ("", "x"), ("a b", "x"), ("ok", ""), ("ok", "x" * 65537)])
def test_secrets_are_checked(world: World, name: str, value: str) -> None:
    with pytest.raises(DomainError):
        commands.set_secret(actor=SYSTEM, tenant=world.vision, name=name, value=value)
