"""The garbage collector stays away for a short while, and comes back whatever happens."""

import gc

import pytest

from apps.core.memory import uncollected


def test_it_is_away_within_and_comes_back() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_comes_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), uncollected():
        raise RuntimeError
    assert gc.isenabled()


def test_who_wants_it_away_for_longer_keeps_it_away() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
