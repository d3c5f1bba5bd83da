"""Apply: one pass of the advance loop, written in one transaction for all of its runs.

Only this and the commands of people move tasks of a running run, and all hold the run's row; every state is guarded by
the one that was read besides. Lock order: runs by id → tasks → jobs.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db import InterfaceError, OperationalError, transaction

from apps.core import loops, redis
from apps.core.actors import SYSTEM
from apps.core.bulk import insert, update_rows
from apps.core.durability import WITHOUT_WAITING
from apps.core.errors import Invalid, StaleState
from apps.core.pipeline import pipelined, when_answered
from apps.events.record import Fact, Move, move_many, record_all
from apps.jobs.admission import default_pool
from apps.jobs.commands import Submission, submit_many
from apps.jobs.models import Job
from apps.tenants.models import Tenant
from engine.dag import TaskState as EngineState
from engine.dag import run_outcome
from rmctl.spec import SpecError

from . import caching, claims, deadlines, moved, past, path_history, unmade, waits
from .commands.datasets import EXTRA_BYTES, Update, record_updates
from .commands.runs import start_children
from .commands.scheduled import hasten
from .ends import of_sensor
from .facts import run_fact
from .fence import fenced
from .models import Run, Task
from .moved import backfill_moved
from .observe import (
    Observed,
    TaskRow,
    Work,
    count_in_flight,
    count_instances,
    job_results,
    load_all,
    load_tasks,
    load_waiting,
    news_of,
    task_states,
    with_active_tasks,
)
from .plans import plan_of
from .progress import Progress, Start
from .results import load_results, size
from .states import RUN_EDGES, TASK_ACTIVE, TASK_EDGES, TASK_IN_FLIGHT, RunState, TaskState

logger = logging.getLogger(__name__)

# Where there is no such pool, jobs wait with a reason that says so.
NO_POOL = "default"
POOL_SECONDS = 5.0
# Raises the scheduler's flag before `submit_many` would send for it: the loop that called runs it itself.
SCHEDULER_IS_NEXT = redis.Hint(lambda _: ("SET", loops.FLAG.format("schedule"), "1", "PX", loops.FLAG_MILLISECONDS))


@dataclass(slots=True)
class Applied:
    """What a pass did: jobs made, runs ended, runs that could not be advanced. In `tenants` places of limits over runs
    are asked for or free."""

    jobs: int = 0
    ended: int = 0
    failed: int = 0
    tenants: set[int] = field(default_factory=set)

    def add(self, other: "Applied") -> None:
        """Count what another pass did; its tenants are looked at by who called it."""
        self.jobs += other.jobs
        self.ended += other.ended
        self.failed += other.failed


def apply(observed: Observed, now: datetime) -> Applied:
    """Advance all runs together; when that fails each alone, so that one bad run holds up no other."""
    if not observed.work:
        return Applied()
    try:
        return _advance(observed.work, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        if len(observed.work) == 1:
            logger.exception("Run %s could not be advanced", next(iter(observed.work)))
            return Applied(failed=1)
        logger.warning("Advancing %d runs together failed, trying each alone", len(observed.work), exc_info=True)
    total = Applied()
    for run_id, work in observed.work.items():
        fresh = _fresh(work)
        one = apply(Observed({run_id: fresh}), now)
        total.add(one)
        total.tenants |= one.tenants
    return total


def _fresh(work: Work) -> Work:
    """The work as it was observed, without what a pass that was rolled back has changed in its rows."""
    for row in (*(item.row for item in work.news), *(row for row, _ in work.due), *work.granted):
        row.reset()
    return work


def _advance(work: Mapping[int, Work], now: datetime, *, then_schedule: bool = True) -> Applied:
    with transaction.atomic():
        # What a pass loses is decided again by the next; a job starts only behind its grant, which does wait.
        commits = WITHOUT_WAITING if then_schedule else "NULL"
        # A run that somebody else holds is being changed by a person, or comes with the next pass.
        runs = list(
            Run.objects.raw(
                f"SELECT r.*, w.awaited, {commits} AS commits "
                "FROM workflows_run r JOIN workflows_workflow w ON w.id = r.workflow_id "
                "WHERE r.id = ANY(%s) AND r.state IN ('queued', 'running') ORDER BY r.id FOR UPDATE OF r SKIP LOCKED",
                [list(work)],
            )
        )
        batch = _Batch(runs, fenced(runs, work), now, then_schedule)
        batch.decide()
        return batch.write()


def settle(run_id: int, now: datetime) -> Applied:
    """Advance one running run, whose row the caller has locked, by everything that its rows say; for commands."""
    return _advance({run_id: Work(news=news_of(run_id), review=True)}, now, then_schedule=False)


class _Batch:
    """The runs of one transaction."""

    def __init__(self, runs: Iterable[Run], work: Mapping[int, Work], now: datetime, then_schedule: bool) -> None:
        """`then_schedule`: the caller runs the scheduling loop itself when this is written."""
        self.now, self.work, self.then_schedule = now, work, then_schedule
        self.facts: list[Fact] = []
        self.progress: dict[int, Progress] = {}
        self.broken: dict[int, tuple[Run, str]] = {}
        for run in runs:
            try:
                plan = plan_of(run.version_id)
                one = self.progress[run.pk] = Progress(run, plan, load_tasks, now)
                if plan.weighing.given:
                    one.weights = path_history.weights_of(run.version_id, plan)
            except SpecError as error:
                self.broken[run.pk] = (run, str(error))

    def decide(self) -> None:
        """Follow the news of every run as far as it goes."""
        self._load()
        asked = [pair for run_id, one in self.progress.items() for pair in one.asks(self.work[run_id].news)]
        returned = job_results(job for job, _ in asked) if asked else {}
        poked = [task for _, task in asked]
        poked += [row.pk for each in self.work.values() for row in each.granted if row.state == TaskState.DEFERRED]
        poking = waits.load(poked) if poked else {}
        for run_id, one in self.progress.items():
            work = self.work[run_id]
            one.waits.update(poking)
            one.take(work.news, returned)
            one.look(work.due)
            one.resume(work.granted)
            if work.start and one.run.state == RunState.QUEUED and not work.review:
                one.begin()
        self._review()
        while True:
            for one in self.progress.values():
                if one.finished:
                    one.settle()
            self._start()
            caching.answer(self.progress.values(), self.now)
            if not any(one.finished for one in self.progress.values()):
                return

    def _load(self) -> None:
        """The rows that the news touch, for all runs at once; all of a run that is limited or reviewed."""
        wanted: dict[int, set[str]] = {}
        whole: list[int] = []
        for run_id, one in self.progress.items():
            work = self.work[run_id]
            wanted[run_id] = one.expect(work)
            if work.start:
                wanted[run_id] |= one.plan.at_start()
            if work.review or one.plan.max_active_tasks:
                whole.append(run_id)
                del wanted[run_id]
        rows = load_tasks(wanted)
        if whole:
            rows += load_all(whole)
        for row in rows:
            self.progress[row.run].add([row])

    def _review(self) -> None:
        limited = [run_id for run_id, one in self.progress.items() if one.plan.max_active_tasks]
        in_flight = count_in_flight(limited) if limited else {}
        decided = [
            job for run_id, one in self.progress.items() if self.work[run_id].review for job in one.decided().values()
        ]
        returned = job_results(decided) if decided else {}
        spared = {
            run_id: names
            for run_id, one in self.progress.items()
            if self.work[run_id].review and (names := one.decided_without_job())
        }
        known = load_results(spared, mapped=False) if spared else {}
        for run_id, one in self.progress.items():
            # One that starts has rows to be looked at only if people have changed some of them.
            review = self.work[run_id].review and (one.run.state == RunState.RUNNING or self.work[run_id].start)
            if one.plan.max_active_tasks:
                # The jobs that have ended are still in flight in the database.
                ended = sum(item.job_state not in ("running", None) for item in self.work[run_id].news)
                one.slots = max(0, one.plan.max_active_tasks - in_flight.get(run_id, 0) + ended)
            if review:
                one.decide_again(returned, known.get(run_id, {}))
            if review or (one.plan.max_active_tasks and one.run.state == RunState.RUNNING):
                one.review(count_instances(run_id) if review else None)

    def _hold(self) -> None:
        """Leave what waits for the run before its own."""
        asked = {run_id: tasks for run_id, one in self.progress.items() if (tasks := one.asks_past())}
        holds = past.holds(asked) if asked else {}
        for run_id in asked:
            self.progress[run_id].hold(holds.get(run_id, {}))

    def _grow(self) -> None:
        """Ask how far mapped tasks are whose instances have started or ended."""
        asked = {run_id: names for run_id, one in self.progress.items() if (names := one.growing.unasked())}
        if asked:
            found = unmade.made(asked)
            limited = {run_id: found[run_id] for run_id in asked if self.progress[run_id].plan.limits}
            if any(mine.waiting for known in limited.values() for mine in known.values()):
                claims.note_lines(limited)
            waiting = {run_id: cleared for run_id in asked if (cleared := self.progress[run_id].grow(found[run_id]))}
            for row in load_waiting(waiting) if waiting else ():
                self.progress[row.run].restart([row])

    def _start(self) -> None:
        self._hold()
        self._grow()
        if limited := [one for one in self.progress.values() if one.ready and one.plan.limits]:
            claims.consider(limited)
        wanted: dict[int, set[str]] = {}
        mapped = False
        for run_id, one in self.progress.items():
            names, some = one.wanted() if one.ready else (set(), False)
            if names:
                wanted[run_id], mapped = names, mapped or some
        results = load_results(wanted, mapped) if wanted else {}
        for run_id, one in self.progress.items():
            if one.ready:
                found = results.get(run_id, {})
                one.complete(found)
                one.start(found)

    # Writing

    def write(self) -> Applied:
        """Store what was decided."""
        with pipelined():
            jobs = self._submit()
            self._write_tasks()
        tenants = self._write_claims()
        caching.write(self.progress.values(), self.now)
        self._write_waits()
        self._write_past()
        self._write_datasets()
        for run, detail in self.broken.values():
            self._abandon(run, detail)
        again = [
            run_id
            for run_id, one in self.progress.items()
            if one.growing.again(limited=one.slots is not None) or one.leaves_places
        ]
        if again:
            moved.tell_runs(again)
        ended = self._write_runs()
        record_all(SYSTEM, self.facts)
        return Applied(jobs=jobs, ended=ended, tenants=tenants)

    def _submit(self) -> int:
        """Make the jobs, in one call for each tenant and owner."""
        shares: dict[tuple[int, int | None], list[tuple[Run, Start]]] = {}
        for one in self.progress.values():
            key = (one.run.tenant_id, one.run.owner_id)
            shares.setdefault(key, []).extend((one.run, start) for start in one.starts)
        for share in shares.values():
            if any(self.progress[run.pk].weights is not None for run, _ in share):
                share.sort(key=lambda item: -self._weight(item[1].row))
        total = sum(len(share) for share in shares.values())
        if total and self.then_schedule:
            redis.hint_on_commit(SCHEDULER_IS_NEXT)
        for (tenant_id, owner_id), share in shares.items():
            for _, start in share:
                start.spec["intent"]["pool"] = start.spec["intent"].get("pool") or _pool()
            items = [
                Submission(start.spec, f"run:{run.pk}", start.spec["name"], self.progress[run.pk].plan.name)
                for run, start in share
            ]
            if items:
                # Only its id is looked at; the row itself would be one more statement.
                tenant = Tenant(pk=tenant_id)
                jobs = submit_many(actor=SYSTEM, tenant=tenant, owner_id=owner_id, items=items)
                for (_, start), job in zip(share, jobs, strict=True):
                    start.row.job = job.pk
        return total

    def _weight(self, row: TaskRow) -> float:
        one = self.progress[row.run]
        weights = one.plan.weighing.fixed if one.weights is None else one.weights
        return weights[row.name]

    def _write_tasks(self) -> None:
        columns = (
            "state", "width", "job", "succeeded", "failed", "skipped", "detail",
            "queued_at", "started_at", "ended_at",
        )  # fmt: skip
        rows = [row for one in self.progress.values() for row in one.touched]
        values = [
            (
                row.pk, str(row.state), row.width, row.job, row.succeeded, row.failed, row.skipped, row.detail,
                row.queued_at, row.started_at, row.ended_at, str(row.source),
            )
            for row in rows
        ]  # fmt: skip
        moved = update_rows(Task, columns, values, guard="state")

        def all_moved() -> None:
            if len(moved) != len(values):
                raise StaleState("Tasks moved while their run was locked; nothing was changed.")

        when_answered(all_moved)
        made = [row for one in self.progress.values() for row in one.made]
        if made:
            stored = insert(
                Task(
                    run_id=row.run,
                    name=row.name,
                    index=row.index,
                    state=str(row.state),
                    job_id=row.job,
                    detail=row.detail,
                    result=row.result,
                    queued_at=row.queued_at,
                    started_at=row.started_at,
                    ended_at=row.ended_at,
                )
                for row in made
            )
            for row, task in zip(made, stored, strict=True):
                row.pk = task.pk
        for row in (*rows, *made):
            if row.state != row.source:
                self.facts.append(self._task_fact(row))

    def _write_claims(self) -> set[int]:
        limited = [one for one in self.progress.values() if one.plan.limits]
        tenants = claims.write(limited, self.now) if limited else set()
        if not self.then_schedule:
            moved.tell_tenants(tenants)
        return tenants

    def _write_waits(self) -> None:
        for one in self.progress.values():
            changes = one.deferring.changes
            if changes.children:
                start_children(one.run, changes, self.now)
            if changes != waits.Changes():
                waits.write(changes, self.now)
        results = [
            (row.pk, row.result) for one in self.progress.values() for row in one.touched if row.result is not None
        ]
        update_rows(Task, ("result",), results)
        named = [one for one in self.progress.values() if one.plan.labelled]
        labels = [(row.pk, row.label) for one in named for row in (*one.touched, *one.made) if row.label is not None]
        update_rows(Task, ("label",), labels)

    def _write_past(self) -> None:
        """Keep who waits for the run before, and send those on whose run before has come to a good end."""
        concerned = [one for one in self.progress.values() if one.plan.past]
        if not concerned:
            return
        held = [(one.rows[name].pk, one.run.pk, why) for one in concerned for name, why in one.held.items()]
        past.store(held, [row.pk for one in concerned for row in one.let_go])
        moved_on = {
            one.run.pk
            for one in concerned
            if any(row.name in one.plan.watched and row.state in past.GOOD for row in one.touched)
        }
        # Also those that were held just now: the run before may have moved in this very pass.
        runs = past.released(moved_on | {why.past for _, _, why in held}) if moved_on or held else []
        if runs:
            moved.tell_runs(runs)

    def _write_datasets(self) -> None:
        """Record the updates of datasets by the tasks that succeeded in this pass."""
        done = [
            (one, row)
            for one in self.progress.values()
            if one.plan.outlets
            for row in one.touched
            if row.index < 0 and row.state == TaskState.SUCCEEDED != row.source and row.name in one.plan.outlets
        ]
        if not done:
            return
        results = dict(Job.objects.filter(pk__in=[row.job for _, row in done]).values_list("pk", "result"))
        updates: dict[int, list[Update]] = {}
        for one, row in done:
            result = row.result if row.job is None else results.get(row.job)
            if one.plan.tasks[row.name].poked:
                result = of_sensor(result, mapped=False)
            extra = result if isinstance(result, dict) and size(result) <= EXTRA_BYTES else {}
            updates.setdefault(one.run.tenant_id, []).extend(
                Update(uri, run=one.run, task=row.name, extra=extra) for uri in one.plan.outlets[row.name]
            )
        for tenant_id, some in updates.items():
            record_updates(SYSTEM, tenant_id, some, self.now)

    def _task_fact(self, row: TaskRow) -> Fact:
        run = self.progress[row.run].run
        facts = {"run": run.pk, "task": str(row)}
        if row.job is not None:
            facts["job"] = row.job
        verb = TASK_EDGES[row.source, row.state]
        return Fact(
            "task.cached" if row.cached and row.state == TaskState.SUCCEEDED else verb,
            "task",
            row.pk,
            tenant_id=run.tenant_id,
            facts=facts,
            reason=row.detail,
            topics=(f"run:{run.pk}",),
        )

    def _abandon(self, run: Run, detail: str) -> None:
        """End what can be ended of a run whose definition this release no longer accepts."""
        waiting = Task.objects.filter(run=run, state__in=[TaskState.WAITING, TaskState.DEFERRED])
        moves = [
            Move(pk, state, TaskState.FAILED, (detail, self.now)) for pk, state in waiting.values_list("pk", "state")
        ]
        claims.release(run=run.pk)
        waits.drop(SYSTEM, [move.pk for move in moves])
        move_many(Task, TASK_EDGES, moves, ("detail", "ended_at"))
        for item in self.work[run.pk].news:
            row = item.row
            if item.job_state != "running":
                target = TaskState.SUCCEEDED if item.job_state == "succeeded" else TaskState.FAILED
                move_many(Task, TASK_EDGES, [Move(row.pk, row.state, target, (self.now,))], ("ended_at",))
        # Mapped tasks end with the last of their instances that were made.
        active = Task.objects.filter(run=run, index__gte=0, state__in=sorted(TASK_ACTIVE)).values("name")
        groups = Task.objects.filter(run=run, width__isnull=False, state__in=sorted(TASK_IN_FLIGHT))
        moves = [
            Move(pk, state, TaskState.FAILED, (detail, self.now))
            for pk, state in groups.exclude(name__in=active).values_list("pk", "state")
        ]
        move_many(Task, TASK_EDGES, moves, ("detail", "ended_at"))

    def _write_runs(self) -> int:
        """Start runs, and end those in which nothing is left to end; returns how many ended."""
        quiet = {run_id for run_id, one in self.progress.items() if not one.starts} | self.broken.keys()
        quiet -= with_active_tasks(quiet) if quiet else set()
        moves, moved, timed = [], [], []
        again = set()
        runs = [*(one.run for one in self.progress.values()), *(run for run, _ in self.broken.values())]
        for run in runs:
            state = run.state
            if state == RunState.QUEUED and self.work[run.pk].start:
                state = RunState.RUNNING
                self.facts.append(run_fact(RUN_EDGES[run.state, state], run, {}))
                run.started_at = self.now
                if run.pk in self.progress and (run.edits or self.progress[run.pk].plan.deadlines):
                    timed.append((run, self.progress[run.pk].plan))
            if state == RunState.RUNNING and run.pk in quiet:
                target = self._outcome(run)
                self.facts.append(run_fact(RUN_EDGES[state, target], run, {}))
                state, run.ended_at = target, self.now
                if target == RunState.SUCCEEDED and self.progress[run.pk].plan.continuous:
                    again.add(run.workflow_id)
            if state != run.state:
                moves.append((run.pk, str(state), run.started_at, run.ended_at, str(run.state)))
                moved.append(run)
        if len(update_rows(Run, ("state", "started_at", "ended_at"), moves, guard="state")) != len(moves):
            raise StaleState("Runs moved while they were locked; nothing was changed.")
        watched = [run for run in runs if run.ended_at and (run.cause_id or run.awaited)]  # type: ignore[attr-defined]
        if watched:
            waits.runs_ended(watched, self.now)
        backfill_moved(moved)
        if again:
            hasten(again, self.now)
        if timed:
            deadlines.started(timed, self.now)
        return sum(end is not None for _, _, _, end, _ in moves)

    def _outcome(self, run: Run) -> str:
        if run.pk in self.broken:
            return RunState.FAILED
        states = {name: EngineState(state) for name, state in task_states(run.pk).items()}
        return run_outcome(self.progress[run.pk].plan.graph, states)


_known_pool: tuple[float, str] = (float("-inf"), NO_POOL)


def _pool() -> str:
    """The pool of tasks that name none, looked up every few seconds."""
    global _known_pool
    if time.monotonic() - _known_pool[0] > POOL_SECONDS:
        try:
            name = default_pool()
        except Invalid:
            name = NO_POOL
        _known_pool = (time.monotonic(), name)
    return _known_pool[1]
