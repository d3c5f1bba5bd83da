"""Any DAG, any outcomes, and people who clear and mark in the middle and afterwards: through the loop and the database.

After every step each waiting task is compared with a reference that knows no counters: the documented rules on the
states of all its upstream tasks (tests/engine/test_dag.py).
"""

from random import Random
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.jobs.models import Job
from apps.workflows import commands, moved, unmade
from apps.workflows.clearing import Choice
from apps.workflows.giving import apply
from apps.workflows.models import Run, SlotClaim, Task, TaskTry
from apps.workflows.observe import Observed
from apps.workflows.plans import plan_of
from engine.dag import FAILING, TERMINAL, Counters, TaskState
from tests.apps.workflows.driver import begin, end_job, start, states, step
from tests.apps.workflows.test_random import WINDOW, dags, rest, with_pool
from tests.engine.test_dag import rescanned
from tests.personas import World

pytestmark = pytest.mark.django_db


class Watched:
    """A run, and what must hold of it at every moment."""

    def __init__(self, world: World, tasks: list[dict[str, Any]]) -> None:
        self.tasks = {task["id"]: task for task in tasks}
        self.run = start(world.vision, *tasks, name=f"w{Run.objects.count()}")
        self.succeeded: set[str] = set()

    def check(self) -> None:
        """No task waits that its rule lets go; counters are exact; no success was taken back by itself."""
        self.run.refresh_from_db()
        rows = {row.name: row for row in Task.objects.filter(run=self.run, index=-1)}
        known = {name: TaskState(row.state) for name, row in rows.items()}
        graph = plan_of(self.run.version_id).graph
        if self.run.state == "running":
            for name, row in rows.items():
                if known[name] != TaskState.WAITING:
                    continue
                above = [known[other] for other in self.tasks[name]["upstream"]]
                rule = self.tasks[name]["trigger_rule"]
                if row.pk in self.in_line():
                    assert rescanned(rule, above) == "run", f"{name} asks for places although {rule} does not let it go"
                    continue
                assert rescanned(rule, above) == "wait", f"{name} waits although {rule} is decided: {known}"
                counters = Counters(total=len(above))
                for other, state in zip(self.tasks[name]["upstream"], above, strict=True):
                    if state in TERMINAL:
                        graph.count(counters, name, other, state)
                assert (row.succeeded, row.failed, row.skipped) == (
                    counters.succeeded, counters.failed, counters.skipped
                ), name  # fmt: skip
        else:
            assert not SlotClaim.objects.filter(run=self.run).exists()
        now = states(self.run)
        assert all(now.get(name) == "succeeded" for name in self.succeeded), (self.succeeded, now)
        self.succeeded = {name for name, state in now.items() if state == "succeeded"}
        if self.run.ended_at is not None:
            assert set(known.values()) <= TERMINAL
            leaves = self.tasks.keys() - {name for task in self.tasks.values() for name in task["upstream"]}
            failed = any(known[name] in FAILING for name in leaves)
            assert self.run.state == ("failed" if failed else "succeeded")

    def in_line(self) -> set[int]:
        """The tasks that wait for places at limits over runs."""
        return set(SlotClaim.objects.filter(run=self.run, held=False).values_list("task", flat=True))

    def clear(self, random: Random) -> None:
        """Clear something; a success that is turned back may end otherwise."""
        now = states(self.run)
        named = random.sample(sorted(now), random.randint(0, min(2, len(now))))
        choice = Choice(tuple(named), *(random.random() < chance for chance in (0.2, 0.6, 0.3)))
        before = {task.pk: task.job_id for task in Task.objects.filter(run=self.run)}
        try:
            plan = commands.clear(actor=SYSTEM, run_id=self.run.pk, choice=choice)
        except Conflict:
            return
        cleared = {str(row) for row in plan.rows} | {row.name for row in (*plan.rows, *plan.groups)}
        kept = set(TaskTry.objects.filter(run=self.run, job__isnull=False).values_list("job_id", flat=True))
        assert {row.job for row in plan.rows if row.job and not row.restart} <= kept
        self.succeeded -= cleared
        for task in Task.objects.filter(run=self.run, restart=False, job__isnull=False):
            assert str(task) not in cleared or task.job_id != before.get(task.pk), f"{task} kept its former job"

    def mark(self, random: Random) -> None:
        """Mark something that has not succeeded."""
        name = random.choice(sorted(states(self.run)))
        try:
            commands.mark(
                actor=SYSTEM, run_id=self.run.pk, tasks=[name], state=random.choice(["succeeded", "failed", "skipped"])
            )
        except Conflict:
            return


@given(dag=dags(), seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_people_turn_back_every_rule_holds_and_the_run_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, dag: Any, seed: int
) -> None:
    tasks, ends = dag
    told: set[int] = set()
    free: set[int] = set()
    monkeypatch.setattr(unmade, "WINDOW", WINDOW)
    monkeypatch.setattr(moved, "tell_runs", told.update)
    monkeypatch.setattr(moved, "tell_tenants", free.update)
    with connection.cursor() as cursor:
        # All examples share a transaction, whose rows the planner would know nothing of.
        cursor.execute("ANALYZE workflows_task, workflows_run, workflows_tasktry, jobs_job")
    random = Random(seed)
    watched = Watched(world, with_pool(world, tasks))
    watched.check()
    acts = random.randint(1, 4)
    for _ in range(600):
        if watched.run.ended_at is not None and not acts:
            break
        jobs = list(Job.objects.filter(origin=f"run:{watched.run.pk}", ended_at=None).order_by("id"))
        if acts and (not jobs or random.random() < 0.25):
            acts -= 1
            if random.random() < 0.75:
                watched.clear(random)
            else:
                watched.mark(random)
            watched.check()
        elif jobs:
            job = random.choice(jobs)
            task = Task.objects.get(job=job) if hasattr(job, "task") else None
            if job.state == "pending" and task is not None and random.random() < 0.3:
                begin(watched.run, task.name, task.index)
            else:
                end_job(job, ends[str(task)] if task is not None else "succeeded", [1, 2])
        step()
        apply(Observed({}, tenants=set(free)), timezone.now())
        free.clear()
        rest(told)
        watched.check()
    assert watched.run.ended_at is not None, f"the run did not end: {states(watched.run)}"
    assert not Task.objects.filter(run=watched.run, restart=True).exists()
