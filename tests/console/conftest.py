"""Fixtures of the console's tests: a browser without a browser, signed in as a persona."""

from typing import Any

import pytest
from django.test import Client

from tests.personas import World


@pytest.fixture(autouse=True)
def plain_static_names(settings: Any) -> None:
    """Pages name static files as they are; that their hashed names work is a test of its own."""
    backend = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}


class People:
    """`people.member`: a client that is signed in as the persona."""

    def __init__(self, world: World) -> None:
        self.world = world

    def as_(self, persona: str) -> Client:
        """A client of the persona; `anonymous` has not signed in."""
        client = Client()
        if persona != "anonymous":
            client.force_login(self.world.users[persona], backend="django.contrib.auth.backends.ModelBackend")
        return client

    def __getattr__(self, persona: str) -> Client:
        return self.as_(persona)


@pytest.fixture
def people(world: World, redis_empty: None) -> People:
    """The console as each persona."""
    return People(world)


def fragment(client: Client, path: str, target: str) -> Any:
    """What htmx gets for one live part of a page."""
    return client.get(path, headers={"HX-Request": "true", "HX-Target": target})
