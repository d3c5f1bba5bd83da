"""Placement by intent: each constraint and goal on small fleets, hostile values, and what may never be broken."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.constraints import Apart, Expression, Facts, Hardware, Together, version
from engine.filters import FILTERS
from engine.fleet import Fleet, NodeRow, Request
from engine.placement import Placed, Unplaced, feasibility, place_gang
from engine.reasons import Reason
from engine.scores import GOALS, terms
from engine.snapshot import PoolView, Snapshot
from engine.suggestions import suggestions
from engine.topology import Constraint

from .test_placement import passes
from .worlds import candidate, closeness, node_rows, requests, row, wide_tree

ENGINE = Path(__file__).parents[2] / "engine"
NEW = """
import numpy as np
from engine.{kind}.registry import {register}

@{register}({arguments})
def _new(fleet, request, *nodes):
    return {value}
"""


@pytest.mark.parametrize(
    ("kind", "register", "arguments", "value", "shown"),
    [
        ("filters", "filter", "'odd', lambda request: 'an odd id', static=True, place=5", "fleet.ids % 2 == 1",
         "print(candidates(fleet, Request())[0].steps[0])"),
        ("scores", "score", "'last', weight=1e9, place=5", "fleet.ids[nodes[0]] / 10.0",
         "print(place_gang(fleet, [(Request(), 1)]).scores['node'])"),
    ],
    ids=["filter", "score"],
)  # fmt: skip
def test_a_new_filter_or_score_is_one_file(
    tmp_path: Path, kind: str, register: str, arguments: str, value: str, shown: str
) -> None:
    copytree(ENGINE, tmp_path / "engine")
    file = tmp_path / "engine" / kind / "new_one.py"
    file.write_text(NEW.format(kind=kind, register=register, arguments=arguments, value=value))
    script = (
        "from engine.placement import *\n"
        "fleet = Fleet.build([NodeRow(n, f'n{n}', 1, 1, 1, 1, 1, 1) for n in range(4)])\n" + shown
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    expected = {
        "filters": "Step(filter='odd', rejected=2, remaining=2, only=2)",
        "scores": "n3",
    }
    assert answer.stdout.strip() == expected[kind]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("8.6", (8, 6)), ("535.104.05", (535, 104, 5)), ("3.12rc1.9", (3, 12)), ("9.0", (9,)), ("", ()), ("x.1", ()),
        ("1..2", (1,)), ("-3", ()), ("²", ()), ("9" * 9999, (int("9" * 18),)),
    ],
)  # fmt: skip
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


@pytest.mark.parametrize(
    ("operator", "values", "accepted"),
    [
        ("In", ("a", "4"), ["a", "4"]),
        ("NotIn", ("a", "4"), [None, "", "b", "10", "nan", "1e999"]),
        ("Exists", (), ["", "a", "b", "4", "10", "nan", "1e999"]),
        ("DoesNotExist", (), [None]),
        ("Gt", ("4",), ["10"]),
        ("Lt", ("10",), ["4"]),
    ],
)
def test_label_operators(operator: str, values: tuple[str, ...], accepted: list[str | None]) -> None:
    expression = Expression("label", operator, values)
    offered = [None, "", "a", "b", "4", "10", "nan", "1e999"]
    assert [value for value in offered if expression.accepts(value)] == accepted
    fleet = Fleet.build([row(n, labels={} if value is None else {"label": value}) for n, value in enumerate(offered)])
    mask = FILTERS["expressions"].check(fleet, Request(expressions=(expression,)))
    assert mask is not None
    assert [value for value, met in zip(offered, mask, strict=True) if met] == accepted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Expression("x", "Like", ("a",)), "operator must be"),
        (lambda: Expression("x", "Gt", ("many",)), "one number"),
        (lambda: Expression("x", "Lt", ()), "one number"),
        (lambda: Expression("x", "Gt", ("inf",)), "one number"),
        (lambda: Together(("zone",), Constraint.REQUIRED, "rack"), "must be one of zone"),
        (lambda: Together(("zone",), Constraint.REQUIRED, "zone", slice_size=0), "at least one"),
        (lambda: Apart("zone", most=0), "at least 1"),
        (lambda: Request(max_price=-1.0), "cannot be negative"),
        (lambda: Request(max_price=float("nan")), "cannot be negative"),
        (lambda: Request(goals=(("cost", 0.0),)), "above 0"),
        (
            lambda: Request(together=Together(("z",), Constraint.REQUIRED, "z"), apart=Apart("node", most=1)),
            "together and apart",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


GOOD = Facts("x86_64", frozenset({"avx", "avx2"}), "3.12.1", "8.6", "535.10", frozenset({"nvlink", "infiniband"}),
             frozenset({"numpy", "scipy"}))  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "lacking", "name"),
    [
        (Hardware(architectures=frozenset({"x86_64", "arm"})), replace(GOOD, architecture="aarch64"), "architecture"),
        (Hardware(cpu_flags=frozenset({"avx", "avx2"})), replace(GOOD, cpu_flags=frozenset({"avx"})), "cpu_flags"),
        (Hardware(python="3.10"), replace(GOOD, python="3.9.18"), "python"),
        (Hardware(gpu_compute="8.6"), replace(GOOD, gpu_compute="8.0"), "gpu_compute"),
        (Hardware(gpu_driver="535.9"), replace(GOOD, gpu_driver="535.8"), "gpu_driver"),
        (Hardware(interconnects=frozenset({"nvlink"})), replace(GOOD, interconnects=frozenset()), "interconnect"),
        (Hardware(packages=frozenset({"scipy"})), replace(GOOD, packages=frozenset({"numpy"})), "packages"),
    ],
)
def test_hardware(asked: Hardware, lacking: Facts, name: str) -> None:
    fleet = Fleet.build([row(0, facts=lacking), row(1, facts=Facts()), row(2, facts=GOOD)])
    placed = place_gang(fleet, [(Request(hardware=asked), 1)])
    assert isinstance(placed, Placed) and placed.members[0][2] == 2
    refused = place_gang(Fleet.build([row(0, facts=lacking), row(1)]), [(Request(hardware=asked), 1)])
    assert isinstance(refused, Unplaced) and refused.reason == Reason.NO_NODE_MATCHES
    assert [step.filter for step in refused.funnel.steps if step.rejected] == [name]
    assert FILTERS[name].words(Request(hardware=asked)) in refused.detail


def test_a_price_ceiling_counts_what_one_member_takes() -> None:
    fleet = Fleet.build([row(0, price_cpu=1.0, price_gpu=3.0, gpu_free=[1000])])
    asked = Request(cpu=2000, gpu_count=1, gpu_milli=500, max_price=3.5)
    assert isinstance(place_gang(fleet, [(asked, 1)]), Placed)
    refused = place_gang(fleet, [(replace(asked, max_price=3.4), 1)])
    assert isinstance(refused, Unplaced) and "a price of at most 3.4 an hour rules out 1" in refused.detail


def test_the_cost_goal_goes_before_packing_and_is_recorded() -> None:
    fleet = Fleet.build([row(0, price_cpu=2.0, cpu_free=2000), row(1, price_cpu=0.5), row(2, price_cpu=1.0)])
    placed = place_gang(fleet, [(Request(cpu=1000, goals=(("cost", 1.0),)), 1)])
    assert isinstance(placed, Placed) and placed.members[0][2] == 1
    assert terms(fleet, Request(cpu=1000, goals=(("cost", 1.0),)), 1)["cost"] == 0.75
    assert terms(fleet, Request(cpu=1000, goals=(("cost", 1.0),)), 1)["total"] > 0.75 * GOALS
    assert "cost" not in terms(fleet, Request(cpu=1000), 1)
    packed = place_gang(fleet, [(Request(cpu=1000), 1)])
    assert isinstance(packed, Placed) and packed.members[0][2] == 0


def racks(*cores: Sequence[int]) -> Fleet:
    """A rack per argument, with nodes of so many free cores; two racks to a zone."""
    rows = []
    for rack, nodes in enumerate(cores):
        for free in nodes:
            labels = {"rack": f"r{rack}", "zone": f"z{rack // 2}"}
            rows.append(row(len(rows), cpu_free=free * 1000, labels=labels))
    return Fleet.build(rows)


def used(fleet: Fleet, outcome: Placed | Unplaced, label: str) -> Counter[str]:
    assert isinstance(outcome, Placed)
    return Counter(fleet.labels[member[2]][label] for member in outcome.members)


def near(constraint: Constraint, **more: Any) -> Request:
    level = more.pop("level", "rack")
    return Request(cpu=1000, together=Together(("zone", "rack"), constraint, level, **more))


def test_a_gang_stays_in_the_smallest_rack_that_takes_it() -> None:
    fleet = racks([3, 3], [2, 2], [8])
    assert used(fleet, place_gang(fleet, [(near(Constraint.REQUIRED), 4)]), "rack") == {"r1": 4}
    assert used(fleet, place_gang(fleet, [(near(Constraint.REQUIRED), 5)]), "rack") == {"r0": 5}


def test_a_required_rack_that_is_too_small_is_said_so() -> None:
    fleet = racks([8, 8], [8])
    outcome = place_gang(fleet, [(near(Constraint.REQUIRED), 17)])
    assert isinstance(outcome, Unplaced) and outcome.reason == Reason.EXCEEDS_EVERY_NODE
    assert outcome.detail == "only 16 of 17 members find room in one rack, even on empty nodes."
    busy = racks([2, 2], [3])
    waiting = place_gang(busy, [(near(Constraint.REQUIRED), 5)])
    assert isinstance(waiting, Unplaced) and waiting.reason == Reason.WAITING_FOR_CAPACITY
    assert waiting.detail == "4 of 5 members find room now in one rack."


def test_a_preferred_rack_gives_way_to_the_zone_and_then_to_any() -> None:
    fleet = racks([3], [3], [2])
    assert used(fleet, place_gang(fleet, [(near(Constraint.PREFERRED), 3)]), "rack") == {"r0": 3}
    assert used(fleet, place_gang(fleet, [(near(Constraint.PREFERRED), 5)]), "zone") == {"z0": 5}
    assert used(fleet, place_gang(fleet, [(near(Constraint.PREFERRED), 8)]), "zone") == {"z0": 6, "z1": 2}


def test_slices_stay_in_a_rack_and_the_gang_in_a_zone() -> None:
    fleet = racks([3], [5], [4], [4])
    asked = near(Constraint.REQUIRED, level="zone", slice_level="rack", slice_size=4)
    outcome = place_gang(fleet, [(asked, 8)])
    assert used(fleet, outcome, "rack") == {"r2": 4, "r3": 4}


def test_several_groups_share_one_rack() -> None:
    fleet = racks([3], [2, 4])
    together = Together(("rack",), Constraint.REQUIRED, "rack")
    groups = [(Request(cpu=1000, together=together), 2), (Request(cpu=2000, together=together), 2)]
    assert used(fleet, place_gang(fleet, groups), "rack") == {"r1": 4}
    refused = place_gang(racks([3], [3]), groups)
    assert isinstance(refused, Unplaced)


def test_nodes_without_the_label_take_none_of_such_a_job() -> None:
    fleet = Fleet.build([row(0), row(1, labels={"rack": "a", "zone": "z"})])
    assert used(fleet, place_gang(fleet, [(near(Constraint.PREFERRED), 2)]), "rack") == {"a": 2}
    refused = place_gang(Fleet.build([row(0)]), [(near(Constraint.REQUIRED), 1)])
    assert isinstance(refused, Unplaced) and refused.reason == Reason.NO_NODE_MATCHES
    assert refused.detail == "the only node does not match: the labels zone, rack rules out 1."


def test_members_apart_on_nodes_and_over_racks() -> None:
    fleet = racks([8, 8], [8], [1])
    one_each = Request(cpu=1000, apart=Apart("node", most=1))
    outcome = place_gang(fleet, [(one_each, 4)])
    assert isinstance(outcome, Placed) and len({member[2] for member in outcome.members}) == 4
    assert isinstance(place_gang(fleet, [(one_each, 5)]), Unplaced)
    even = Request(cpu=1000, apart=Apart("rack", max_skew=1))
    assert used(fleet, place_gang(fleet, [(even, 5)]), "rack") == {"r0": 2, "r1": 2, "r2": 1}
    waiting = place_gang(fleet, [(even, 6)])
    assert isinstance(waiting, Unplaced) and waiting.reason == Reason.WAITING_FOR_CAPACITY
    assert waiting.detail == "5 of 6 members find room now spread over rack with a difference of at most 1."


@settings(max_examples=400, deadline=None)
@given(node_rows(6), requests(), closeness, st.integers(1, 5))
def test_placement_breaks_no_hard_constraint(
    rows: list[NodeRow], request: Request, close: dict[str, Any], count: int
) -> None:
    request = replace(request, **{"together": None, "apart": None, **close})
    fleet = Fleet.build(rows)
    outcome = place_gang(fleet, [(request, count)])
    if isinstance(outcome, Unplaced):
        return
    assert feasibility(fleet, [(request, count)]) is None
    assert all(all(passes(rows[member[2]], request).values()) for member in outcome.members)
    together, apart = request.together, request.apart
    if together is not None and together.constraint == Constraint.REQUIRED:
        assert len({rows[member[2]].labels["zone"] for member in outcome.members}) == 1
    if apart is not None:
        key = (lambda node: node.name) if apart.key == "node" else (lambda node: node.labels[apart.key])
        domains = {key(node): 0 for node in rows if _matches(node, request)}
        for member in outcome.members:
            domains[key(rows[member[2]])] += 1
        assert apart.most is None or max(domains.values()) <= apart.most
        assert apart.max_skew is None or max(domains.values()) - min(domains.values()) <= apart.max_skew


def _matches(node: NodeRow, request: Request) -> bool:
    checks = passes(node, request)
    return all(met for name, met in checks.items() if FILTERS[name].static)


@pytest.mark.parametrize(
    ("request_", "count", "text"),
    [
        (Request(cpu=1000, hardware=Hardware(cpu_flags=frozenset({"sve"}))), 1, "without cpu flags sve: now"),
        (Request(cpu=1000, hardware=Hardware(python="4")), 1, "without Python 4: now"),
        (Request(cpu=1000, expressions=(Expression("rack", "NotIn", ("r0", "r1")),)), 1,
         "without rack NotIn r0|r1: now"),
        (Request(cpu=1000, max_price=0.1), 1, "a price of 1 an hour instead of 0.1: now"),
        (near(Constraint.REQUIRED), 9, "with one rack only preferred: now"),
        (Request(cpu=1000, apart=Apart("node", most=1)), 3, "without the spread over node: now"),
    ],
)  # fmt: skip
def test_the_constraint_in_the_way_is_suggested(request_: Request, count: int, text: str) -> None:
    rows = [
        row(number, labels={"rack": f"r{number}", "zone": "z"}, price_cpu=1.0 + number, facts=GOOD)
        for number in range(2)
    ]
    fleet = Fleet.build(rows)
    everything = np.ones(2, dtype=np.bool_)
    pool = {"p": PoolView(everything, [("default", everything)])}
    job = candidate(1, 1, [(request_, count)])
    snapshot = Snapshot(fleet, pool, wide_tree(1), [job])
    assert text in [item.text for item in suggestions(snapshot, 1, now=10.0)]
