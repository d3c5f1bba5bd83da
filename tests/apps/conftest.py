"""Fixtures of the tests of apps."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def configuration_read_anew() -> Iterator[None]:
    """A test that is rolled back gives its stamp to the next one, which nothing in production does."""
    from apps.scheduling import configuration

    configuration._kept = None
    yield
    configuration._kept = None
