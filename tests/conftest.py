"""Fixtures that every test of the portal may use. The database and Redis are real ones, from the environment.

Each process has a test database of its own (`test_<name of DATABASE_URL>`, with a suffix under xdist) and
flushes only the Redis database that REDIS_URL names, or under xdist the one with the number of its worker.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_django.lazy_django import django_settings_is_configured

if TYPE_CHECKING:
    from tests.personas import Objects, World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "schemathesis: requests made up from the OpenAPI document")


@pytest.hookimpl(optionalhook=True)  # Without pytest-xdist there is no such hook.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`-n 2` gives whole files to the workers; another `--dist` is left to pytest-xdist."""
    from tests.workers import FilesAtATime

    return FilesAtATime(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        from tests.workers import long_ones_first

        long_ones_first(items)


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs, artifacts and bundles of the tests go to a folder of their own."""
    if not django_settings_is_configured():  # Tests of the engine or the agent alone.
        yield
        return
    from django.conf import settings
    from django.core.files.storage import storages

    folder = tmp_path_factory.mktemp("storage")
    for name in ("logs", "artifacts", "checkpoints", "bundles"):
        settings.STORAGES[name]["OPTIONS"]["location"] = folder / name
    storages._storages.clear()
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)  # WhiteNoise warns when it is missing.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker:
        from rmportal import environment

        # Numbers from 1 on, as 0 is everybody's; processes that tests start get the same.
        settings.REDIS_URL = re.sub(r"(\?db=|/)\d+$", rf"\g<1>{int(worker) + 1}", settings.REDIS_URL)
        os.environ["REDIS_URL"] = settings.REDIS_URL
        settings.CACHES["default"]["LOCATION"] = settings.REDIS_URL
        settings.CELERY_BROKER_URL = environment.broker(settings.REDIS_URL)
    # Limits have a test of their own; elsewhere they would make one test depend on another.
    settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"] = dict.fromkeys(
        ("user", "login", "join", "webhook"), "100000/s"
    )
    # Hashing a password as slowly as production does would be most of the suite's time.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    yield


@pytest.fixture(autouse=True)
def configuration_read_anew() -> Iterator[None]:
    """A test that is rolled back gives its stamp to the next one, which production never does. Ids come but once here
    too: what is kept by them (plans, weights, topologies) is left, so that a test fails where they would not."""
    if not django_settings_is_configured():
        yield
        return
    from apps.jobs import configuration
    from apps.scheduling import observe, outlook, queries, running
    from apps.scheduling.runtimes import run_times

    def forget() -> None:
        configuration._kept, running._kept = None, {}
        observe._arrivals, observe._last_arrival, observe._views = None, 0, None
        observe._estimated = (float("-inf"), {})
        run_times.cache_clear()
        outlook.forget()
        queries.forget_queued()

    forget()
    yield
    forget()


@pytest.fixture(autouse=True)
def no_alarm_outlives_its_test() -> Iterator[None]:
    """What a pass has asked for at a later time would wake a loop in the middle of another test."""
    yield
    if django_settings_is_configured():
        from apps.core import loops

        for _, alarm in loops._alarms.values():
            alarm.cancel()
        loops._alarms.clear()


@pytest.fixture
def redis_empty() -> Iterator[None]:
    """An empty Redis before and after the test."""
    from apps.core import redis

    redis.client().flushdb()
    yield
    redis.client().flushdb()


@pytest.fixture
def world(db: None, request: pytest.FixtureRequest) -> World:
    """Two domains, two tenants, a person of every kind; and one of everything for a test that asks for `objects`."""
    from tests.api.objects import kept_objects
    from tests.personas import kept_world

    return kept_objects() if "objects" in request.fixturenames else kept_world()


@pytest.fixture
def objects(world: World) -> Objects:
    """One object of every kind."""
    return world.objects


class Api:
    """A client of the REST API that speaks JSON as one persona."""

    def __init__(self, token: str | None = None) -> None:
        from django.test import Client

        self.client = Client(raise_request_exception=True)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One request to /api/v1/<path>; header names may use underscores."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        content = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        return self.client.generic(method, f"/api/v1/{path}", headers={**self.headers, **extra}, **content)

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.call("DELETE", path, **headers)


class Apis:
    """`api.as_("member")`: the API as a persona; `api.operator` for short."""

    def __init__(self, world: World) -> None:
        self.world = world

    def as_(self, persona: str, *scopes: str) -> Api:
        """A client with a token of the persona (all scopes by default)."""
        return Api(self.world.token(persona, *scopes))

    def __getattr__(self, persona: str) -> Api:
        return self.as_(persona)


@pytest.fixture
def api(world: World, redis_empty: None) -> Apis:
    """The REST API as each persona."""
    return Apis(world)
