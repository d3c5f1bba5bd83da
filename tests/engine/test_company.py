"""Jobs that want others near or away: who counts, where, and that what is kept up equals what is counted anew."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backfill import Plan, Running
from engine.company import Bonds, Company, Neighbours
from engine.cycle import decide
from engine.fleet import Fleet, Request
from engine.placement import Placed, Unplaced, candidates, feasibility, place_gang, take_members
from engine.preemption import Cause
from engine.queues import Holder, Policy, QueueRules
from engine.reasons import Reason
from engine.simulate import Job, QueuePolicy, Simulation
from engine.snapshot import Candidate, Snapshot, Verdict
from engine.suggestions import suggestions

from .worlds import bonds, candidate, node_rows, one_pool, requests, row, snapshots, wide_tree

WEB, DB = (("app", "web"),), (("app", "db"),)
TO_WEB, TO_DB = (("app", ("web",)),), (("app", ("db",)),)


def zones(*names: str, **values: int) -> Fleet:
    fleet = Fleet.build([row(number, labels={"zone": name}, **values) for number, name in enumerate(names)])
    fleet.company = Company(fleet.domains)
    return fleet


def job(number: int, mine: Bonds, *, cpu: int = 1000, count: int = 1, **values: object) -> Candidate:
    return candidate(number, 1, [(Request(cpu=cpu, bonds=mine), count)], **values)


def cycle(fleet: Fleet, *items: Candidate, **values: object) -> dict[int, Verdict]:
    verdicts = decide(Snapshot(fleet, one_pool(fleet), wide_tree(2), list(items), **values), now=10.0)  # type: ignore[arg-type]
    return {verdict.job: verdict for verdict in verdicts}


def nodes_of(verdict: Verdict) -> set[int]:
    return {member[2] for member in verdict.members}


def settle(fleet: Fleet, mine: Bonds, *nodes: int) -> None:
    for node in nodes:
        fleet.take(Request(cpu=1000, bonds=mine), node, ())


def test_a_job_goes_to_the_zone_of_those_it_wants_near() -> None:
    fleet = zones("a", "a", "b", "b")
    settle(fleet, Bonds(1, DB), 3)
    near = Bonds(1, near=(Neighbours(TO_DB, "zone"),))
    assert nodes_of(cycle(fleet, job(1, near))[1]) <= {2, 3}
    assert nodes_of(cycle(fleet, job(1, Bonds(1, near=(Neighbours(TO_DB),))))[1]) == {3}


def test_jobs_of_another_tenant_do_not_count() -> None:
    fleet = zones("a", "b")
    settle(fleet, Bonds(2, DB), 0)
    assert cycle(fleet, job(1, Bonds(1, near=(Neighbours(TO_DB, "zone"),))))[1].outcome == "pend"
    settle(fleet, Bonds(2, WEB, away=(Neighbours(TO_DB, "zone"),)), 1)
    assert cycle(fleet, job(1, Bonds(1, DB, away=(Neighbours(TO_DB, "zone"),))))[1].outcome == "grant"


def test_without_any_such_job_it_waits_and_says_so() -> None:
    verdict = cycle(zones("a", "b"), job(1, Bonds(1, near=(Neighbours(TO_DB, "zone"),))))[1]
    assert verdict.reason == Reason.WAITING_FOR_CAPACITY
    assert verdict.detail == (
        "flavor default: it wants jobs with app=db on the same zone, and none runs."
    )
    assert verdict.funnel is not None
    step = next(step for step in verdict.funnel.steps if step.filter == "near")
    assert (step.rejected, step.only) == (2, 2)


def test_the_first_of_a_series_starts_anywhere_and_the_others_beside_it() -> None:
    fleet = zones("a", "a", "b", "b")
    mine = Bonds(1, WEB, near=(Neighbours(TO_WEB, "zone"),))
    found = cycle(fleet, *(job(number, mine, cpu=4000) for number in range(1, 7)))
    assert [verdict.outcome for verdict in found.values()].count("grant") == 4  # Two zones of two nodes of 8 cores.
    granted = set().union(*(nodes_of(verdict) for verdict in found.values()))
    assert granted in ({0, 1}, {2, 3})


def test_replicas_that_stay_away_from_each_other_have_a_node_each() -> None:
    fleet = zones("a", "a", "b")
    mine = Bonds(1, WEB, away=(Neighbours(TO_WEB),))
    found = cycle(fleet, *(job(number, mine, cpu=100) for number in range(1, 5)))
    assert sorted(node for verdict in found.values() for node in nodes_of(verdict)) == [0, 1, 2]
    assert "away from jobs with app=web on the same node, and 3 of 3 matching nodes have some." in found[4].detail


def test_who_keeps_away_keeps_others_away_too() -> None:
    fleet = zones("a", "b")
    settle(fleet, Bonds(1, away=(Neighbours(TO_DB, "zone"),)), 0)
    assert nodes_of(cycle(fleet, job(1, Bonds(1, DB)))[1]) == {1}
    settle(fleet, Bonds(1, away=(Neighbours(TO_DB, "zone"),)), 1)
    verdict = cycle(fleet, job(1, Bonds(1, DB)))[1]
    assert "jobs that stay away from it run on the same zone as 2 of 2 matching nodes." in verdict.detail
    assert cycle(fleet, job(1, Bonds(1, WEB)))[1].outcome == "grant"


def test_members_of_one_job_are_no_company_for_each_other() -> None:
    fleet = zones("a", "b")
    verdict = cycle(fleet, job(1, Bonds(1, WEB, away=(Neighbours(TO_WEB),)), cpu=1000, count=4))[1]
    assert verdict.outcome == "grant"


def test_a_node_without_the_label_is_near_nobody_and_away_from_all() -> None:
    fleet = Fleet.build([row(0)])
    fleet.company = Company(fleet.domains)
    settle(fleet, Bonds(1, DB), 0)
    assert cycle(fleet, job(1, Bonds(1, away=(Neighbours(TO_DB, "zone"),))))[1].outcome == "grant"
    verdict = cycle(fleet, job(1, Bonds(1, near=(Neighbours(TO_DB, "zone"),))))[1]
    assert verdict.reason == Reason.NO_NODE_MATCHES
    assert "the labels zone rules out 1" in verdict.detail
    empty = feasibility(fleet, [(Request(cpu=1, bonds=Bonds(1, near=(Neighbours(TO_DB),))), 1)])
    assert empty is None, "on empty nodes nobody is near, which may change"


def test_wishes_for_company_outweigh_packing() -> None:
    fleet = zones("a", "b")
    settle(fleet, Bonds(1, DB), 0)
    settle(fleet, Bonds(1, WEB), 1, 1, 1, 1)  # The fuller node would be best otherwise.
    near = Bonds(1, near=(Neighbours(TO_DB, "zone", 1.0),))
    away = Bonds(1, away=(Neighbours(TO_WEB, "zone", 1.0),))
    both = Bonds(1, near=(Neighbours(TO_DB, "zone", 1.0), Neighbours(TO_WEB, "zone", 3.0)))
    assert [nodes_of(cycle(fleet, job(1, mine))[1]) for mine in (near, away, both)] == [{0}, {0}, {1}]


def test_a_ranking_follows_company_that_comes_in_the_same_cycle() -> None:
    fleet = zones("a", "a", "b", "b")
    wishes = Bonds(1, WEB, away=(Neighbours(TO_WEB, "zone", 1.0),))
    found = cycle(fleet, *(job(number, wishes) for number in (1, 2)))
    assert {node // 2 for verdict in found.values() for node in nodes_of(verdict)} == {0, 1}


def test_the_constraint_that_stands_in_the_way_is_suggested() -> None:
    fleet = zones("a")
    settle(fleet, Bonds(1, WEB), 0)
    mine = Bonds(1, near=(Neighbours(TO_DB, "zone"),))
    snapshot = Snapshot(fleet, one_pool(fleet), wide_tree(2), [job(1, mine)])
    assert [item.text for item in suggestions(snapshot, 1, now=10.0)] == [
        "without jobs with app=db on the same zone: now"
    ]
    mine = Bonds(1, away=(Neighbours(TO_WEB, "zone"),))
    snapshot = Snapshot(fleet, one_pool(fleet), wide_tree(2), [job(1, mine)])
    (found,) = suggestions(snapshot, 1, now=10.0)
    assert found.field == "intent.away"
    assert found.text == "without staying away from jobs with app=web on the same zone: now"


def test_somebody_can_be_evicted_who_would_have_to_be_away() -> None:
    fleet = zones("a")
    web = Request(cpu=1000, bonds=Bonds(1, WEB))
    fleet.take(web, 0, ())
    usage = {("default", "cpu"): 1000}
    tree = wide_tree(2)
    tree.add(1, usage)
    snapshot = Snapshot(
        fleet,
        one_pool(fleet),
        tree,
        [job(1, Bonds(1, away=(Neighbours(TO_WEB),)), priority=10)],
        rules={1: QueueRules(within_queue=Policy.LOWER_PRIORITY)},
        holders=[Holder(uid=7, queue=1, priority=0, submitted=0.0, since=0.0, usage=usage)],
        places={7: [(web, 0, ())]},
    )
    (verdict,) = decide(snapshot, now=10.0)
    assert verdict.victims == ((7, Cause.IN_QUEUE),)


@settings(max_examples=300, deadline=None)
@given(
    node_rows(6),
    st.lists(st.tuples(bonds, st.integers(0, 5), st.sampled_from([1, 1, -1])), max_size=25),
    st.lists(bonds, min_size=1, max_size=4),
)
def test_counts_that_are_kept_up_equal_those_made_anew(rows, steps, asked) -> None:  # type: ignore[no-untyped-def]
    """Also in forks: what one of them does, the other does not see."""
    fleet = Fleet.build(rows)
    warm, there, other = Company(fleet.domains), [], None
    for place, (mine, node, sign) in enumerate(steps):
        _ = warm.allowed(asked[place % len(asked)])
        if place == len(steps) // 2:
            other = warm.fork(), list(there)
        if sign < 0 and there:
            warm.count(*there.pop(node % len(there)), -1)
        elif sign > 0:
            there.append((mine, node % len(rows)))
            warm.count(*there[-1])
    nodes = np.arange(len(rows))
    for company, members in [(warm, there)] + ([other] if other else []):
        anew = Company(fleet.domains, members)
        for mine in asked:
            for answer in ("near", "away", "allowed"):
                was, now = getattr(company, answer)(mine), getattr(anew, answer)(mine)
                assert (was is None) == (now is None)
                assert was is None or np.array_equal(was, now)
            was, now = company.preferred(mine, nodes), anew.preferred(mine, nodes)
            assert was is now is None or np.array_equal(was, now)
            everywhere = np.ones(len(rows), dtype=np.bool_)
            assert company.words(mine, everywhere) == anew.words(mine, everywhere)


@settings(max_examples=200, deadline=None)
@given(node_rows(6), st.lists(st.tuples(requests(), bonds, st.integers(1, 2)), min_size=1, max_size=10))
def test_a_warm_fleet_places_as_one_that_is_built_anew(rows, kinds) -> None:  # type: ignore[no-untyped-def]
    warm, held = Fleet.build(rows), []
    warm.company = Company(warm.domains)
    for place, (request, mine, count) in enumerate(kinds):
        groups = [(replace(request, bonds=mine), count)]
        anew = Fleet.build(rows)
        anew.company = Company(anew.domains)
        for taken, node, cards in held:
            anew.take(taken, node, cards)
        here, there = place_gang(warm, groups), place_gang(anew, groups)
        assert candidates(warm, groups[0][0])[0] == candidates(anew, groups[0][0])[0]
        if isinstance(here, Unplaced) or isinstance(there, Unplaced):
            assert here == there
            continue
        assert here.members == there.members
        take_members(warm, groups, here.members)
        held += [(groups[group][0], node, cards) for group, _, node, cards in here.members]
        if place % 3 == 2:
            request, node, cards = held.pop(0)
            warm.give(request, node, cards)


@settings(max_examples=300, deadline=None)
@given(snapshots(), st.data())
def test_what_is_granted_keeps_to_all_bonds(snapshot: Snapshot, data: st.DataObject) -> None:
    """Grants are replayed one after the other against counts made by hand."""
    fleet = snapshot.fleet
    if fleet.company is None:
        return
    items = {item.job: item for item in snapshot.candidates}
    there = list(fleet.company.members())
    for verdict in decide(snapshot, now=10.0):
        if verdict.outcome != "grant":
            continue
        groups = items[verdict.job].groups
        mine = groups[0][0].bonds
        arriving = [member[2] for member in verdict.members]
        for node in arriving if mine is not None else ():
            others = [(other, place) for other, place in there if other.tenant == mine.tenant]

            def same(one: Neighbours, place: int, node: int = node) -> bool:
                domains = fleet.domains(one.key)
                return bool(domains[node] and domains[node] == domains[place])

            for one in mine.near_needs:
                known = [place for other, place in others if one.means(other.labels) and fleet.domains(one.key)[place]]
                assert any(same(one, place) for place in known) or (not known and one.means(mine.labels))
            assert not any(one.means(o.labels) and same(one, at) for one in mine.away_needs for o, at in others)
            assert not any(one.means(mine.labels) and same(one, at) for o, at in others for one in o.away_needs)
        there += [(mine, node) for node in arriving if mine is not None]


def test_a_job_that_is_let_ahead_does_not_keep_a_reserved_one_away() -> None:
    """The head waits for all 8 cores until 100. Somebody whom it must not meet may go ahead only if it ends by then."""
    fleet = zones("a")
    head = job(1, Bonds(1, DB, away=(Neighbours(TO_WEB),)), cpu=7000, priority=5)
    runs = Request(cpu=4000)
    fleet.take(runs, 0, ())
    running = [Running(9, 1, 100.0, {}, [(runs, 0, ())])]

    def outcome(mine: Bonds, seconds: float) -> str:
        plan = Plan(running=running, durations={1: 1000.0, 2: seconds})
        return cycle(fleet, head, job(2, mine), plan=plan)[2].outcome

    assert outcome(Bonds(1, WEB), 80.0) == "grant"
    assert outcome(Bonds(1, WEB), 200.0) == "pend"
    assert outcome(Bonds(1), 200.0) == "grant"
    assert outcome(Bonds(1, away=(Neighbours(TO_DB),)), 200.0) == "pend"


def test_a_simulation_counts_those_that_come_and_go() -> None:
    fleet = zones("a", "b")
    db = job(1, Bonds(1, DB), submitted=5.0)
    near = job(2, Bonds(1, near=(Neighbours(TO_DB, "zone"),)), submitted=0.0)
    away = job(3, Bonds(1, DB, away=(Neighbours(TO_DB, "zone"),)), cpu=8000, submitted=6.0)
    last = job(4, Bonds(1, DB, away=(Neighbours(TO_DB, "zone"),)), cpu=100, submitted=7.0)
    made = Simulation(
        fleet=fleet,
        pools=one_pool(fleet),
        tree=wide_tree(2),
        jobs=[Job(item, 50.0, 100.0) for item in (db, near, away, last)],
        policy=QueuePolicy(),
        start=0.0,
    )
    records = made.run()
    assert [records[number].spans[0][0] for number in (1, 2, 3, 4)] == [5.0, 5.0, 6.0, 55.0]
    assert made.fleet.company is not None
    assert not list(made.fleet.company.members())
    assert isinstance(place_gang(made.fleet, db.groups), Placed)
