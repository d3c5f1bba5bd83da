"""What waiting jobs can expect: their place, the terms of their order, and when they will start.

Starts are estimated on many possible futures (engine.forecast) for the first jobs of the queue together, when
somebody looks; the answer is kept for a while that grows with what it cost, so that looking never becomes the load.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from engine.cycle import decide
from engine.estimates import Estimate
from engine.forecast import DRAWS, Start, estimate_starts
from engine.order import Reach, Terms, order_terms, queue_share
from engine.reasons import Reason
from engine.snapshot import Candidate, queue_order, urgency

from .calibration import Learnt, keep, learnt
from .observe import GRANTS_MAX, ORDER, Observed, observe
from .running import Float64, LiveRun, live_runs
from .runtimes import run_times

# Starts are estimated for so many jobs, the first of all queues in the order in which they are looked at.
FIRST = 50
# Futures times nodes times jobs of one estimate, and the least number of futures.
WORK = 100_000
DRAWS_LEAST = 8
# An estimate is kept for at least so long, and for so many times what it took to make.
KEEP_SECONDS = 3.0
KEEP_TIMES = 20
# One that takes longer is made behind the back of whoever asks.
PATIENCE_SECONDS = 1.0
# Reasons that do not pass by waiting.
STUCK = frozenset(
    {
        Reason.TENANT_SUSPENDED,
        Reason.NO_POOL,
        Reason.NO_FLAVOR,
        Reason.NO_NODE_MATCHES,
        Reason.EXCEEDS_EVERY_NODE,
        Reason.EXCEEDS_MAX_QUOTA,
    }
)
LEVELS = {"job": "of this job", "tenant": "of its tenant's jobs", "all": "of all jobs"}


@dataclass(frozen=True, slots=True)
class Forecast:
    """Estimated starts by job, as seen at `at`; `order` are all that waited, in the order in which they are looked at.

    `starts` is what people are told: `made`, stretched by what was `learnt` from earlier ones. `runs` is how many jobs
    ran or were ahead, `known` for how many of them the run time is known by earlier runs.
    """

    at: datetime
    order: tuple[int, ...]
    starts: Mapping[int, Start]
    made: Mapping[int, Start]
    learnt: Learnt
    runs: int
    known: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """One waiting job: its place in its queue, what orders it, how long it will run, and when it will start.

    `unknown` says why there is no estimated start. Times are aware datetimes, seconds are floats.
    """

    position: int | None = None
    terms: Terms | None = None
    # The priority that it was submitted with; the terms have what that counts for under its quota.
    named: int = 0
    reach: Reach = Reach.WITHIN
    # Waiting jobs of other queues that go before it for their priority alone, and before which it goes.
    above: int = 0
    below: int = 0
    waited: float = 0.0
    share: float = 0.0
    run_time: Estimate | None = None
    p50: datetime | None = None
    p90: datetime | None = None
    basis: str = ""
    unknown: str = ""

    @property
    def run_basis(self) -> str:
        """What the run time is estimated by, in words."""
        return "" if self.run_time is None else basis_of(self.run_time)


def basis_of(estimate: Estimate) -> str:
    """`by 34 runs of this job`, or `by the time limit`."""
    if estimate.source not in LEVELS:
        return "by the time limit"
    runs = "run" if estimate.samples == 1 else "runs"
    return f"by {estimate.samples} {runs} {LEVELS[estimate.source]}"


@dataclass(slots=True)
class _Desk:
    """The latest forecast of this process, and who makes the next one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    forecast: Forecast | None = None
    until: float = 0.0
    cost: float = 0.0
    busy: bool = False


_desk = _Desk()


def forget() -> None:
    """Make the next forecast anew."""
    global _desk
    _desk = _Desk()


def forecast(observed: Observed, now: datetime, wanted: int | None = None) -> Forecast | None:
    """The present estimates; None while the first is still being made.

    A job that is `wanted` and was not there yet makes it too old.
    """
    desk = _desk
    with desk.lock:
        kept = desk.forecast
        fresh = kept is not None and time.monotonic() < desk.until
        if fresh and kept is not None and (wanted is None or wanted in kept.order or desk.cost > PATIENCE_SECONDS):
            return kept
        if desk.busy:
            return kept
        desk.busy = True
    task = _Task(observed, now)
    if desk.cost <= PATIENCE_SECONDS:
        return _make(desk, task)
    threading.Thread(target=_make, args=(desk, task), name="forecast", daemon=True).start()
    return kept


class _Task:
    """A forecast with everything that it needs read already."""

    def __init__(self, observed: Observed, now: datetime) -> None:
        self.now = now
        self.runs: dict[int, LiveRun] = {run.job: run for run, _ in live_runs()}
        plan = observed.snapshot.plan
        assert plan is not None
        durations = dict(observed.expected)
        plan = replace(plan, running=plan.expected(), durations=durations)
        self.snapshot = replace(observed.snapshot, plan=plan)
        self.expected = observed.expected

    def quantiles(self, job: int, probabilities: Float64) -> Float64:
        """Run times from the start, of jobs that run and of those that wait."""
        if (run := self.runs.get(job)) is not None:
            return run.quantiles(run_times(), probabilities, self.now.timestamp())
        row = self.expected.row(job)
        return run_times().quantiles(row.tenant, row.name, row.limit, probabilities)

    def make(self) -> Forecast:
        """Decide once for the order, then once for each future."""
        snapshot, at = self.snapshot, self.now.timestamp()
        verdicts = decide(snapshot, now=at, limit=GRANTS_MAX)
        order = tuple(verdict.job for verdict in verdicts)
        first = set([verdict.job for verdict in verdicts if verdict.reason not in STUCK][:FIRST])
        jobs = [item for item in snapshot.candidates if item.job in first]
        draws = max(DRAWS_LEAST, min(DRAWS, WORK // max(1, len(snapshot.fleet) * len(jobs))))
        made = estimate_starts(
            replace(snapshot, candidates=jobs),
            now=at,
            quantiles=self.quantiles,
            since={job: run.since for job, run in self.runs.items()},
            draws=draws,
            depth=FIRST,
        )
        known = learnt(self.now)
        estimates = [run_times().estimate(run.tenant, run.name, run.limit) for run in self.runs.values()]
        estimates += [self.expected.estimate(item.job) for item in jobs]
        return Forecast(
            at=self.now,
            order=order,
            starts={job: known.stretch.apply(start, at) for job, start in made.items()},
            made=made,
            learnt=known,
            runs=len(estimates),
            known=sum(estimate.source != "limit" for estimate in estimates),
        )


def _make(desk: _Desk, task: _Task) -> Forecast:
    began = time.monotonic()
    try:
        desk.forecast = task.make()
        desk.cost = time.monotonic() - began
        desk.until = time.monotonic() + max(KEEP_SECONDS, KEEP_TIMES * desk.cost)
        return desk.forecast
    finally:
        desk.busy = False


def note(now: datetime) -> None:
    """Keep an estimate of each job among the first that waits and has none, so that later ones learn from it."""
    observed = observe(now)
    if observed is not None and observed.snapshot.candidates:
        made = _Task(observed, now).make()
        keep(made.made, made.starts, now)


def positions(observed: Observed) -> dict[int, int]:
    """The place of every waiting job in its own queue, from 1."""
    snapshot = observed.snapshot
    points = snapshot.plan.points if snapshot.plan is not None else {}
    queues = queue_order(snapshot.candidates, points, snapshot.across)
    return {item.job: place for items in queues.values() for place, item in enumerate(items, 1)}


def outlook(observed: Observed, job: int, reason: str, now: datetime) -> Outlook:
    """What a job that may start can expect. `reason` is why it waits."""
    item = next((item for item in observed.snapshot.candidates if item.job == job), None)
    if item is None:
        return Outlook(unknown="the scheduler has not looked at it yet.")
    run_time = observed.expected.estimate(job)
    share = queue_share(observed.snapshot.tree, item.queue)
    waited = max(0.0, now.timestamp() - item.submitted)
    across, apart = observed.snapshot.across, {item.queue, *observed.snapshot.suspended}
    others = [
        urgency(other, across) for other in observed.snapshot.candidates if across and other.queue not in apart
    ]
    found = Outlook(
        position=positions(observed)[job],
        named=observed.expected.row(job).priority,
        reach=Reach.ACROSS if item.pool in across else Reach.WITHIN,
        above=sum(other > urgency(item, across) for other in others),
        below=sum(other < urgency(item, across) for other in others),
        terms=order_terms(ORDER, priority=item.priority, waited=waited, expected=run_time.p50, share=share),
        waited=waited,
        share=share,
        run_time=run_time,
    )
    if reason in STUCK:
        return replace(found, unknown="it does not start by waiting: something has to be changed.")
    return start_of(found, forecast(observed, now, job), item, now)


def start_of(found: Outlook, made: Forecast | None, item: Candidate, now: datetime) -> Outlook:
    """The outlook with the estimated start of a forecast, or why there is none."""
    if made is None:
        return replace(found, unknown="it is being estimated; look again in a moment.")
    start = made.starts.get(item.job)
    if start is None:
        place = made.order.index(item.job) if item.job in made.order else len(made.order)
        if place >= FIRST:
            text = f"{place} jobs are looked at before it, and starts are estimated for the first {FIRST}."
        else:
            text = "in most of the futures that were tried nobody gives back what it waits for."
        return replace(found, unknown=text)
    others, known = made.runs, made.known
    basis = f"from the run times of {others} jobs that run or wait: {known} by earlier runs, "
    basis += f"{others - known} by their time limits"
    if made.learnt.words:
        basis += f"; {made.learnt.words}"
    p50, p90 = (max(now, datetime.fromtimestamp(at, UTC)) for at in (start.p50, start.p90))
    return replace(found, p50=p50, p90=p90, basis=basis)
