"""API tokens: shown once, stored as a digest, scoped, expiring, revocable."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid, NotFound
from apps.tenants import commands
from apps.tenants.models import ApiToken
from tests.conftest import Api
from tests.personas import World, soon


def test_it_is_shown_once(world: World, api: Any) -> None:
    made = api.member.post("tokens", {"name": "laptop", "scopes": ["read"]}).json()
    assert made["token"].startswith("rmp_")
    assert not ApiToken.objects.filter(digest=made["token"]).exists()
    listed = api.member.get("tokens")
    assert made["token"] not in listed.content.decode() and made["hint"] in listed.content.decode()
    assert Api(made["token"]).get("me").json()["scopes"] == ["read"]


def test_others_do_not_see_it(world: World, api: Any) -> None:
    row, _ = commands.create_token(actor=world.actor("member"), name="mine")
    assert row.pk not in [token["id"] for token in api.admin.get("tokens").json()["results"]]
    assert api.admin.delete(f"tokens/{row.pk}").status_code == 404


def test_a_token_gives_no_more_than_the_one_that_makes_it(world: World, api: Any) -> None:
    reader = api.as_("member", "read")
    assert reader.post("tokens", {"name": "more", "scopes": ["write"]}).status_code == 403
    same = reader.post("tokens", {"name": "same", "scopes": ["read"]})
    assert same.status_code == 201
    ends = ApiToken.objects.get(pk=same.json()["id"]).expires_at
    longer = {"name": "longer", "scopes": ["read"], "expires_at": (ends + timedelta(days=1)).isoformat()}
    outlives = Api(same.json()["token"]).post("tokens", longer)
    assert (outlives.status_code, outlives.json()["code"]) == (403, "forbidden")
    assert "cannot outlive" in outlives.json()["detail"]
    with pytest.raises(Forbidden):
        commands.create_token(actor=SYSTEM, name="nobody's")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"expires_at": soon(-1)}, "expires_at"),
        ({"expires_at": timezone.now() + timedelta(days=367)}, "expires_at"),
    ],
)
def test_nonsense_is_refused(world: World, change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.create_token(actor=world.actor("member"), **{"name": "ok", **change})
    assert refusal.value.errors[0]["field"] == field


def test_revoking_ends_it_at_once(world: World, api: Any) -> None:
    row, token = commands.create_token(actor=world.actor("member"), name="mine")
    client = Api(token)
    assert client.get("me").status_code == 200
    commands.revoke_token(actor=world.actor("member"), token_id=row.pk)
    commands.revoke_token(actor=world.actor("member"), token_id=row.pk)
    assert client.get("me").status_code == 401
    with pytest.raises(NotFound):
        commands.revoke_token(actor=world.actor("stranger"), token_id=row.pk)


def test_losing_a_role_is_felt_by_the_next_request(world: World, api: Any) -> None:
    client = api.member
    assert client.get("tenants/vision").status_code == 200
    world.users["member"].memberships.all().delete()
    assert client.get("tenants/vision").status_code == 404
