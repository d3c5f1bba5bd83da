"""Where nodes stand: jurisdictions, the way to users or data, and power."""

import numpy as np

from engine.fleet import Fleet, Request
from engine.placement import Placed, place_gang
from engine.scores import SCORES
from engine.sites import Site
from engine.stores import Stored, Wanted

from .worlds import row

EU = Site("eu", frozenset({"EU", "DE"}), {"us": 90.0, "asia": 200.0}, carbon=300.0)
US = Site("us", frozenset({"US"}), {"eu": 90.0}, carbon=450.0)
ASIA = Site("asia", frozenset(), {"eu": 200.0})


def fleet() -> Fleet:
    return Fleet.build(
        [
            row(0, site=EU, watts=(6.0, 0.0)),
            row(1, site=US, watts=(2.0, 0.0), stored=Stored(datasets={"maps": 1})),
            row(2, site=ASIA, stored=Stored(datasets={"corpus": 1})),
        ]
    )


def scores(name: str, request: Request) -> list[float] | None:
    value = SCORES[name].term(fleet(), request, np.arange(3))
    return None if value is None else [round(part, 4) for part in value.tolist()]


def test_data_stays_under_the_jurisdictions_that_are_asked_for() -> None:
    for wanted, node in (({"DE"}, 0), ({"US", "CH"}, 1)):
        placed = place_gang(fleet(), [(Request(jurisdictions=frozenset(wanted)), 1)])
        assert isinstance(placed, Placed) and placed.members[0][2] == node
    never = place_gang(fleet(), [(Request(jurisdictions=frozenset({"CH"})), 1)])
    assert not isinstance(never, Placed)
    assert never.detail == "none of 3 nodes matches: a jurisdiction among CH rules out 3."


def test_latency_to_users_falls_with_the_way() -> None:
    assert scores("latency", Request(near_region="eu")) == [1.0, 0.55, 0.0]
    # From asia to us nobody knows a way.
    assert scores("latency", Request(near_region="us")) == [0.0, 1.0, 0.0]
    assert scores("latency", Request(near_region="moon")) is None
    assert scores("latency", Request()) is None


def test_latency_to_data_is_that_to_the_farthest() -> None:
    assert scores("latency", Request(wanted=Wanted(datasets=("maps",)))) == [0.0, 1.0, 0.0]
    assert scores("latency", Request(wanted=Wanted(datasets=("maps", "corpus")))) == [0.0, 0.0, 0.0]


def test_energy_counts_watts_by_the_carbon_of_the_region() -> None:
    """Of two cores: 2 · 6 · 300 = 3600, 2 · 2 · 450 = 1800; who says no watts has the most."""
    assert scores("energy", Request(cpu=2000)) == [0.0, 0.5, 0.0]
    assert scores("energy", Request(gpu_count=1)) is None
    plain = Fleet.build([row(0, watts=(6.0, 0.0)), row(1, watts=(3.0, 0.0))])
    value = SCORES["energy"].term(plain, Request(cpu=1000), np.arange(2))
    assert value is not None and value.tolist() == [0.0, 0.5]
