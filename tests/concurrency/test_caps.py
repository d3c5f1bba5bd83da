"""What others hold of a contribution never exceeds its cap, whoever grants at the same time."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.fleet import commands as fleet
from apps.fleet.models import Contribution
from apps.jobs import commands as jobs
from apps.jobs.models import Job, Placement
from apps.quotas import ledger
from apps.scheduling import apply as applying
from apps.scheduling.models import Cycle
from apps.scheduling.observe import observe
from engine.cycle import decide
from tests.concurrency.test_ledger import busy_world, workers
from tests.personas import World
from tests.work import simulated_node, submit

__all__ = ["busy_world"]


@pytest.mark.parametrize("trees", [True, False], ids=["as it is", "without the lock of the quota trees"])
def test_cycles_with_different_jobs_and_nodes_share_one_cap(
    busy_world: World, monkeypatch: pytest.MonkeyPatch, trees: bool
) -> None:
    """Each of two cycles fills the cap on a node of its own, and knows nothing of the other."""
    row = Contribution.objects.get(cluster__name="alpha-fake")
    fleet.update_contribution(actor=SYSTEM, contribution_id=row.pk, cap_cpu_millicores=4000)
    decided, now = [], timezone.now()
    for name in ("a", "b"):
        simulated_node(busy_world, f"sim-{name}", cpu=4000, labels={"half": name})
        intent = {"require": {"labels": {"half": [name]}}}
        own = [submit(busy_world, cpu="1", tenant=busy_world.speech, intent=intent) for _ in range(4)]
        observed = observe(now)
        assert observed is not None
        decided.append((observed, decide(observed.snapshot, now=now.timestamp())))
        for job in own:
            jobs.hold(actor=SYSTEM, job_id=job.pk)
    Job.objects.update(held=False)
    assert [[verdict.outcome for verdict in verdicts] for _, verdicts in decided] == [["grant"] * 4] * 2
    if not trees:
        monkeypatch.setattr(ledger, "lock_trees", lambda: None)
    both, granted_by = threading.Barrier(2), list[int]()

    def apply(number: int) -> Callable[[], Any]:
        def work() -> None:
            record = Cycle(at=now, considered=4, granted=0, observe_ms=0, decide_ms=0)
            both.wait(10)
            granted_by.append(applying.apply(*decided[number], now, record))

        return work

    with workers(apply(0), apply(1)) as errors:
        pass

    assert errors == []
    assert sorted(granted_by) == [0, 4]
    assert sum(Placement.objects.values_list("cpu_millicores", flat=True)) == 4000
