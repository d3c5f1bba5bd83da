"""What lies ready on nodes: demands for it, and how near a job gets to it."""

import numpy as np

from engine.fleet import Fleet, Request
from engine.placement import Placed, Unplaced, place_gang
from engine.scores import SCORES
from engine.stores import Stored, Wanted

from .worlds import GIB, row

GB = 10**9


def fleet() -> Fleet:
    return Fleet.build(
        [
            row(0, stored=Stored(frozenset({"docker.io/library/a:1"})), network=1000),
            row(1, stored=Stored(datasets={"corpus": 30 * GB}), network=1000),
            row(2, stored=Stored(datasets={"maps": 10 * GB}), network=10_000),
        ]
    )


def scores(name: str, wanted: Wanted) -> list[float]:
    value = SCORES[name].term(fleet(), Request(wanted=wanted), np.arange(3))
    return [] if value is None else value.tolist()


def node(request: Request) -> int | str:
    placed = place_gang(fleet(), [(request, 1)])
    return placed.members[0][2] if isinstance(placed, Placed) else placed.detail


def test_an_image_or_data_that_has_to_be_there() -> None:
    assert node(Request(wanted=Wanted("docker.io/library/a:1", image_needed=True))) == 0
    assert node(Request(wanted=Wanted(needed=("maps",)))) == 2
    told = node(Request(wanted=Wanted("docker.io/library/b:1", image_needed=True)))
    assert told == "none of 3 nodes matches: having the image docker.io/library/b:1 already rules out 3."
    assert isinstance(place_gang(fleet(), [(Request(wanted=Wanted(needed=("maps", "corpus"))), 1)]), Unplaced)


def test_locality_is_the_time_that_the_missing_data_takes() -> None:
    """Both are 40 GB: 320 s at 1 Gbit/s, the slowest network."""
    both = Wanted(datasets=("corpus", "maps"))
    assert fleet().stores.seconds(both.datasets).tolist() == [320.0, 80.0, 24.0]
    assert scores("locality", both) == [0.0, 0.75, 0.925]
    assert scores("locality", Wanted(datasets=("unknown",))) == []
    assert node(Request(cpu=100, wanted=both, goals=(("locality", 1.0),))) == 2


def test_warmth_is_the_part_that_is_there() -> None:
    assert scores("warmth", Wanted("docker.io/library/a:1", datasets=("corpus",))) == [0.5, 0.5, 0.0]
    assert scores("warmth", Wanted()) == []


def test_what_is_larger_on_one_node_counts_with_the_larger_size() -> None:
    nodes = Fleet.build([row(0, stored=Stored(datasets={"a": 0})), row(1, stored=Stored(datasets={"a": GIB})), row(2)])
    assert nodes.stores.size("a") == GIB
    assert nodes.stores.seconds(("a",)).tolist()[:2] == [0.0, 0.0]
