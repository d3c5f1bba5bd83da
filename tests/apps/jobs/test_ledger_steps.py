"""Whatever happens to jobs in whatever order: after each step the kept sums are the grants, and nothing is over."""

from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apps.core.actors import SYSTEM
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Grant, Job, Placement
from apps.jobs.states import ATTEMPT_LIVE, JOB_ACTIVE, JOB_PLACED
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaUsage
from tests.personas import World, make_limits
from tests.work import cycle, report, simulated_node, submit

PICK = st.integers(0, 10**6)


class Ledger(RuleBasedStateMachine):
    """Jobs of two tenants on two small nodes with cards; each run in a transaction that is rolled back."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.nodes = [simulated_node(self.world, f"sim-{n}", cpu=3000, cards=2) for n in range(2)]
        rows = [*make_limits(cpu=2500), {"flavor": "cpu", "resource": "gpu", "nominal": 2000}]
        for leaf in (self.world.vision_quota, self.world.speech_quota):
            quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=rows)

    def teardown(self) -> None:
        if hasattr(self, "atomic"):
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    def pick(self, rows: Any, number: int) -> Any:
        found = list(rows.order_by("pk"))
        return found[number % len(found)] if found else None

    @rule(
        cpu=st.sampled_from(["200m", "1", "1500m"]),
        count=st.integers(1, 3),
        milli=st.sampled_from([0, 300, 1000]),
        retries=st.integers(0, 1),
        mine=st.booleans(),
    )
    def submit(self, cpu: str, count: int, milli: int, retries: int, mine: bool) -> None:
        gpu = {"milli": milli} if milli else None
        tenant = self.world.vision if mine else self.world.speech
        again = {"limit": retries, "delay": 0, "jitter": 0}
        submit(self.world, tenant=tenant, cpu=cpu, count=count, gpu=gpu, retries=again)

    @rule()
    def schedule(self) -> None:
        cycle()

    @precondition(lambda self: Placement.objects.filter(state__in=sorted(ATTEMPT_LIVE)).exists())
    @rule(
        number=PICK,
        kind=st.sampled_from(["started", "ended"]),
        end=st.sampled_from([("exited", 0), ("exited", 1), ("time_limit", None), ("lost", None), ("stopped", None)]),
        stale=st.booleans(),
    )
    def tell(self, number: int, kind: str, end: tuple[str, int | None], stale: bool) -> None:
        rows = Placement.objects.select_related("attempt")
        member = self.pick(rows if stale else rows.filter(state__in=sorted(ATTEMPT_LIVE)), number)
        if kind == "started":
            report(member, "started")
        else:
            report(member, reason=end[0], exit_code=end[1])

    @rule(number=PICK)
    def cancel(self, number: int) -> None:
        job = self.pick(Job.objects.filter(state__in=sorted(JOB_ACTIVE)), number)
        if job is not None:
            jobs.cancel(actor=SYSTEM, job_id=job.pk)

    @rule(number=PICK)
    def lose_a_node(self, number: int) -> None:
        node = self.nodes[number % 2]
        ids = list(Placement.objects.filter(node=node).values_list("pk", flat=True))
        jobs.end_lost(actor=SYSTEM, placement_ids=ids, detail="")

    @rule(number=PICK)
    def end_unborn(self, number: int) -> None:
        jobs.end_unborn(actor=SYSTEM, placement_ids=list(Placement.objects.values_list("pk", flat=True)))

    @invariant()
    def sums_are_exact_and_within_bounds(self) -> None:
        if not hasattr(self, "atomic"):
            return
        assert drift() == []
        for node in self.nodes:
            node.refresh_from_db()
            assert node.allocated_cpu_millicores <= node.cpu_millicores
            assert all(card.allocated_milli <= 1000 for card in node.gpus.all())
        used = QuotaUsage.objects.filter(resource="cpu").values_list("used", flat=True)
        assert sum(used) <= 5000

    @invariant()
    def a_job_holds_a_grant_exactly_while_it_is_placed(self) -> None:
        holding = set(Grant.objects.filter(released_at=None).values_list("job_id", flat=True))
        assert holding == set(Job.objects.filter(state__in=sorted(JOB_PLACED)).values_list("pk", flat=True))


@pytest.mark.usefixtures("world")
def test_the_ledger_is_exact_after_every_step(world: World) -> None:
    machine = type("LedgerOfThisWorld", (Ledger,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
