"""What if: the present with changes, decided by the scheduler's own code over virtual time. Nothing is written."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from django.db import connection, transaction

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.jobs.policies import jobs as job_policy
from engine import simulate
from engine.fleet import Fleet
from engine.outcomes import Outcomes, Ran, outcomes, ran
from engine.timeline import edges_of, last_end, used_over

from .changes import ADDED, JOBS_MAX, NODES_MAX, Asked, refuse_above
from .policies import simulations
from .world import RUN_TIMES, World, load_world, policy_named, simulated

HORIZON_MAX = 30 * 86_400
# What one request may compute; all of it, both runs.
SECONDS_MAX = 20.0
# Points of the lines that say how much is in use; they go as far as somebody runs, and for a minute at least.
BINS = 120
LEAST_SECONDS = 60.0
# Jobs that are named in an answer.
SHOWN_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Course:
    """How one job goes in a simulation; times are aware, None for what does not happen before the horizon."""

    outcome: str
    starts_at: datetime | None
    ends_at: datetime | None
    waits_seconds: float | None
    nodes: Sequence[str]
    evicted_for: Sequence[int | None]
    detail: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """One job with and without the changes; `number` is None for one that is only made up."""

    number: int | None
    name: str
    tenant: int
    changed: bool
    before: Course | None
    after: Course | None


@dataclass(frozen=True, slots=True)
class Use:
    """Which part of each resource is in use, as means between each two of `at`, with and without the changes."""

    at: list[datetime]
    before: dict[str, list[float]]
    after: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Affected jobs first, at most SHOWN_MAX; figures of the whole are for those who see all of it."""

    at: datetime
    until: datetime
    jobs: list[Simulated]
    total: int
    affected: int
    before: Outcomes | None
    after: Outcomes | None
    use: Use | None


def deadline(what: str, seconds: float = SECONDS_MAX) -> Callable[[], None]:
    """A check that raises Invalid once so many seconds have gone."""
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            message = f"this takes more than {seconds:.0f} s to compute: {what}."
            raise Invalid(message, code="simulation_too_large")

    return check


def read_only() -> None:
    """Let the database itself refuse every write until the present transaction or savepoint ends."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")


def simulate_changes(*, actor: Actor, request: Mapping[str, Any], now: datetime) -> Answer:
    """Simulate the present with and without the changes of a request (see SimulateBody in api.py).

    Raises Invalid for what does not exist or is too large, and Forbidden for changes that are not the actor's to ask.
    """
    with transaction.atomic():
        read_only()
        world = load_world(now, run_time=RUN_TIMES[request["run_times"]])
        refuse_above("jobs", len(world.jobs), JOBS_MAX, "jobs run or wait")
        refuse_above("nodes", len(world.fleet), NODES_MAX, "nodes are there")
        asked = Asked(actor, world, request)
        until = world.now + request["horizon_seconds"]
        check = deadline("ask for a shorter horizon_seconds or fewer jobs")
        present = policy_named(world.configuration, None)
        before = simulated(world, present, until=until, check=check)
        after = before
        if asked.any:
            policy = policy_named(world.configuration, request.get("policy"))
            after = simulated(
                world,
                policy,
                until=until,
                added=asked.jobs,
                changes=asked.changes,
                fleet=asked.fleet,
                like=asked.like,
                check=check,
            )
        return _answer(actor, world, asked, before, after, until)


def _answer(
    actor: Actor,
    world: World,
    asked: Asked,
    before: simulate.Simulation,
    after: simulate.Simulation,
    until: float,
) -> Answer:
    everything = simulations.sees_all(actor)
    numbers = [job.candidate.job for job in world.jobs]
    visible = set(numbers)
    if not everything:
        visible = set(job_policy.visible(actor).filter(pk__in=numbers).values_list("pk", flat=True))
    shown = [*asked.labels, *(number for number in numbers if number in visible)]
    known = visible | asked.labels.keys()
    rows = []
    for number in shown:
        was = _course(before, number, world.fleet, known) if number not in asked.labels else None
        will = _course(after, number, asked.fleet, known)
        rows.append(
            Simulated(
                number=None if number in asked.labels else number,
                name=asked.labels.get(number, world.names[number]),
                tenant=world.tenants[number],
                changed=was is None or _differs(was, will),
                before=was,
                after=will,
            )
        )
    rows.sort(key=lambda row: not row.changed)
    figures = _figures(world, asked, before, after, until) if everything else (None, None, None)
    return Answer(
        at=datetime.fromtimestamp(world.now, UTC),
        until=datetime.fromtimestamp(until, UTC),
        jobs=rows[:SHOWN_MAX],
        total=len(rows),
        affected=sum(row.changed for row in rows),
        before=figures[0],
        after=figures[1],
        use=figures[2],
    )


def _course(made: simulate.Simulation, number: int, fleet: Fleet, known: set[int]) -> Course:
    record = made.records.get(number)
    if record is None:
        return Course("not submitted", None, None, None, (), (), "it comes after the horizon.")
    last = record.spans[-1] if record.spans else None
    start = record.started if record.started is not None else last[0] if last is not None else None
    end, outcome = record.ends, "running"
    if record.started is None:
        if number in made.waiting or last is None:
            start, end, outcome = None, None, "waiting"
        else:
            end, outcome = last[1], {"done": "ended", "limit": "time limit"}.get(last[2], last[2])
        if outcome == "cancelled" and last is not None and last[0] == last[1]:
            start = None  # It never ran.
    verdict = record.verdict
    return Course(
        outcome=outcome,
        starts_at=_moment(start),
        ends_at=_moment(end),
        waits_seconds=None if start is None else max(0.0, start - record.submitted),
        nodes=tuple(dict.fromkeys(fleet.names[row] for row in record.nodes)) if start is not None else (),
        evicted_for=[job if job in known and job < ADDED else None for job in record.evicted_for],
        detail=verdict.detail if outcome == "waiting" and verdict is not None else "",
    )


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _differs(one: Course, other: Course) -> bool:
    """Whether anything that people care for is another; a second more or less is none."""

    def apart(before: datetime | None, after: datetime | None) -> bool:
        if before is None or after is None:
            return before is not after
        return abs((after - before).total_seconds()) >= 1.0

    ends = apart(one.starts_at, other.starts_at) or apart(one.ends_at, other.ends_at)
    return ends or (one.outcome, one.evicted_for) != (other.outcome, other.evicted_for)


def _figures(
    world: World, asked: Asked, before: simulate.Simulation, after: simulate.Simulation, until: float
) -> tuple[Outcomes, Outcomes, Use]:
    """The outcome as it is and with the changes, and how much is in use over the time."""
    weights = {node.id: node.weight for node in world.tree.nodes.values()}
    was, will = _runs(before, world.jobs), _runs(after, [*world.jobs, *asked.jobs])

    def made(runs: Sequence[Ran], changes: Sequence[simulate.Change], fleet: Fleet) -> Outcomes:
        capacity = capacity_over(fleet, changes, world.now, until)
        return outcomes(runs, start=world.now, end=until, capacity=capacity, weights=weights)

    edges = edges_of(world.now, last_end([*was, *will], world.now, until, LEAST_SECONDS), BINS)
    use = Use(
        at=[datetime.fromtimestamp(at, UTC) for at in edges],
        before=used_over(was, edges, _capacities(world.fleet, (), edges)),
        after=used_over(will, edges, _capacities(asked.fleet, asked.changes, edges)),
    )
    return made(was, (), world.fleet), made(will, asked.changes, asked.fleet), use


def _runs(made: simulate.Simulation, jobs: Sequence[simulate.Job]) -> list[Ran]:
    return [ran(job, made.records[job.candidate.job]) for job in jobs if job.candidate.job in made.records]


def _capacities(
    fleet: Fleet, changes: Sequence[simulate.Change], edges: Sequence[float]
) -> dict[str, list[float]]:
    """What there is of each resource between each two edges, in amounts times seconds."""
    if not any(change.ready or change.lost for change in changes):
        bins = [capacity_over(fleet, (), edges[0], edges[1])] * (len(edges) - 1)
    else:
        bins = [capacity_over(fleet, changes, begin, end) for begin, end in pairwise(edges)]
    return {resource: [capacity[resource] for capacity in bins] for resource in bins[0]}


def capacity_over(fleet: Fleet, changes: Sequence[simulate.Change], start: float, end: float) -> dict[str, float]:
    """What all nodes that are not lost have, times the seconds for which they are there."""
    there = [start if ready else None for ready in fleet.ready]
    seconds = [0.0] * len(fleet)
    for change in sorted(changes, key=lambda change: change.at):
        at = min(max(change.at, start), end)
        for row in change.ready:
            there[row] = at if there[row] is None else there[row]
        for row in change.lost:
            since = there[row]
            seconds[row] += 0.0 if since is None else at - since
            there[row] = None
    for row, since in enumerate(there):
        seconds[row] += 0.0 if since is None else end - since
    whole = {"cpu": fleet.cpu_capacity, "memory": fleet.memory_capacity, "gpu": fleet.cards * 1000}
    return {name: float(np.dot(have.astype(np.float64), seconds)) for name, have in whole.items()}

