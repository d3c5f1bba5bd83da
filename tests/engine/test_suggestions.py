"""What a suggestion promises: make the change, and the job starts."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from engine.cycle import decide
from engine.fleet import Fleet, Request
from engine.quota import Limit, Node, QuotaTree
from engine.snapshot import PoolView, Snapshot
from engine.suggestions import Suggestion, suggestions

from .worlds import GIB, RESOURCES, candidate, one_pool, row, snapshots, wide_tree


def world(fleet: Fleet, *items: object, tree: QuotaTree | None = None) -> Snapshot:
    return Snapshot(fleet, one_pool(fleet), tree or wide_tree(2), list(items))  # type: ignore[arg-type]


def told(snapshot: Snapshot, job: int = 1) -> list[Suggestion]:
    return suggestions(snapshot, job, now=10.0)


def starts(snapshot: Snapshot, job: int) -> bool:
    return any(verdict.job == job and verdict.outcome == "grant" for verdict in decide(snapshot, now=10.0))


@settings(max_examples=1000, deadline=None)
@given(snapshots())
def test_a_change_that_is_suggested_starts_the_job(snapshot: Snapshot) -> None:
    pending = [verdict.job for verdict in decide(snapshot, now=10.0) if verdict.outcome == "pend"]
    for job in pending[:3]:
        assert not starts(snapshot, job)
        for item in told(snapshot, job):
            assert starts(item.apply(snapshot), job), item.text


def test_a_job_that_starts_needs_no_suggestion() -> None:
    fleet = Fleet.build([row(0)])
    assert told(world(fleet, candidate(1, 1, Request(cpu=1000)))) == []


def test_the_region_that_stands_in_the_way_is_named() -> None:
    fleet = Fleet.build([row(0, region="us"), row(1, region="eu", cpu_free=0)])
    found = told(world(fleet, candidate(1, 1, Request(cpu=4000, regions=frozenset({"eu"})))))
    assert [item.text for item in found] == ["without region=eu: now"]
    assert found[0].field == "intent.require.regions"
    assert found[0].before == ["eu"]
    assert found[0].after == []


def test_fewer_larger_cards_instead_of_more_small_ones() -> None:
    fleet = Fleet.build(
        [
            row(0, gpu_free=[0, 0, 0, 0], gpu_model="A100", gpu_memory=40 * GIB),
            row(1, gpu_free=[1000, 1000], gpu_model="H100", gpu_memory=80 * GIB),
        ]
    )
    request = Request(cpu=1000, gpu_count=4, gpu_memory=40 * GIB)
    found = told(world(fleet, candidate(1, 1, request)))
    assert "2 GPUs of 80 GiB instead of 4 of 40 GiB: now" in [item.text for item in found]


def test_quota_that_is_missing_is_counted() -> None:
    limits = {("default", resource): Limit(10**15) for resource in RESOURCES}
    short = {**limits, ("default", "gpu"): Limit(2000)}
    tree = QuotaTree([Node(0, None, "all", {}), Node(1, 0, "vision", short)], {})
    fleet = Fleet.build([row(0, gpu_free=[1000] * 4)])
    found = told(world(fleet, candidate(1, 1, Request(cpu=100, gpu_count=4)), tree=tree))
    assert [item.text for item in found] == [
        "2 GPUs instead of 4 GPUs: now",
        "vision's quota of gpu in flavor default +2 GPUs: now",
    ]
    assert found[1].after == {"flavor": "default", "resource": "gpu", "nominal": 4000}


def test_a_size_is_cut_no_further_than_needed() -> None:
    fleet = Fleet.build([row(0, cpu_free=2550)])
    found = told(world(fleet, candidate(1, 1, Request(cpu=4000))))
    assert [(item.field, item.after) for item in found] == [("groups[0].resources.cpu", 2500)]


def test_a_gang_is_cut_to_the_members_that_fit() -> None:
    fleet = Fleet.build([row(0), row(1)])
    found = told(world(fleet, candidate(1, 1, [(Request(cpu=5000), 3)])))
    # The change that gives up less comes first: a fifth of the cpu before a third of the members.
    assert [item.text for item in found] == ["4 cpu instead of 5 cpu: now", "2 members instead of 3: now"]


def test_a_taint_that_alone_keeps_it_out_can_be_tolerated() -> None:
    taint = {"key": "dedicated", "value": "infra", "effect": "NoSchedule"}
    fleet = Fleet.build([row(0, taints=[taint]), row(1, cpu_free=0)])
    found = told(world(fleet, candidate(1, 1, Request(cpu=4000))))
    assert found[0].text == "tolerating dedicated=infra: now"
    assert found[0].after == [taint]


def test_jobs_ahead_keep_what_they_get() -> None:
    fleet = Fleet.build([row(0, region="us", cpu_free=4000), row(1, region="eu", cpu_free=0)])
    ahead = candidate(2, 1, Request(cpu=4000), priority=5)
    late = candidate(1, 1, Request(cpu=4000, regions=frozenset({"eu"})))
    assert told(world(fleet, ahead, late)) == []


def test_the_snapshot_is_not_changed() -> None:
    fleet = Fleet.build([row(0, region="us")])
    snapshot = world(fleet, candidate(1, 1, Request(cpu=4000, regions=frozenset({"eu"}))))
    before = (fleet.cpu.copy(), list(snapshot.candidates), snapshot.tree)
    told(snapshot)
    assert np.array_equal(fleet.cpu, before[0])
    assert (list(snapshot.candidates), snapshot.tree) == before[1:]
    everything = np.ones(1, dtype=np.bool_)
    assert told(replace(snapshot, pools={"p": PoolView(everything, [])})) == []
