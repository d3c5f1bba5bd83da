"""Which replicas of a service are started and stopped, and when a rollout has ended: from what is there now.

A service wants so many replicas of one revision, its target. While replicas of others are there they are exchanged:
new ones are started up to `max_surge` above what is wanted, old ones are stopped as far as `max_unavailable` below it,
where a new one counts once it has run for `min_ready` seconds. These are the rules of a Deployment of Kubernetes
(`maxSurge`, `maxUnavailable`, `minReadySeconds`, `progressDeadlineSeconds`), with two differences: a replica that is
being stopped takes its place until its processes have ended, and a rollout that failed goes back by itself.

    target    the current revision; after a failed rollout the one before, if there is one
    ceiling   wanted + max_surge: no replica is started above it, those that are being stopped included
    floor     wanted - max_unavailable: no replica that serves is stopped below it

Crashes may go below the floor; decisions never do. What ended is replaced after a back-off that grows with each end
that comes soon after the start, and only for the revision that ended so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.retry import next_delay

# So many early ends after each other are a crash loop.
CRASH_LOOP = 3


class Condition(StrEnum):
    """How a service is, in a word."""

    STOPPED = "stopped"
    STOPPING = "stopping"
    READY = "ready"
    STARTING = "starting"
    DEGRADED = "degraded"
    CRASH_LOOP = "crash_loop"


class Outcome(StrEnum):
    """How a rollout ends."""

    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a service rolls and restarts; seconds. `max_surge` and `max_unavailable` are not both zero."""

    max_surge: int = 1
    max_unavailable: int = 0
    min_ready: float = 5.0
    progress_deadline: float = 600.0
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 300.0
    # A replica that ended before it has run so long ended early.
    settled: float = 60.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Early ends of a revision after each other, and when it may be started again after the last of them."""

    failures: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One that has not ended; `running` since when its process runs, None while it waits for its place."""

    id: int
    revision: int
    running: float | None = None
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A service as it is. `stable` is the latest revision that was rolled out completely; `peak` the most replicas of
    the present rollout that were ready at once, and `progressed` when that last grew."""

    wanted: int
    current: int
    stable: int | None
    rolling: bool
    failed: bool
    progressed: float
    peak: int
    replicas: Sequence[Replica]
    backoffs: Mapping[int, Backoff]
    policy: Policy

    @property
    def target(self) -> int:
        """The revision that all replicas are to be of."""
        return self.stable if self.failed and self.stable is not None else self.current


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: revisions to start a replica of (with repetitions), replicas to stop, whether the rollout
    has ended, revisions whose early ends are forgotten, and when to look again if nothing happens before."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    outcome: Outcome | None
    condition: Condition
    ready: int
    peak: int
    forgive: tuple[int, ...]
    look_at: float | None


def after_end(backoff: Backoff, *, lived: float, at: float, policy: Policy, seed: int) -> Backoff:
    """The back-off of a revision after one of its replicas ended at `at`, `lived` seconds after its start.

    Ends before the next start was allowed are of the same round, so many replicas that crash together count once.
    """
    if lived >= policy.settled:
        return Backoff()
    if backoff.failures and at < backoff.retry_at:
        return backoff
    failures = backoff.failures + 1
    delays = {"delay": policy.delay, "factor": policy.factor, "max_delay": policy.max_delay, "jitter": 0.1}
    return Backoff(failures, at + next_delay(delays, failures, seed=seed))


def decide(view: View, now: float) -> Plan:
    """What to do with a service now."""
    policy, target = view.policy, view.target
    alive = [replica for replica in view.replicas if not replica.stopping]
    mine = [replica for replica in alive if replica.revision == target]
    others = [replica for replica in alive if replica.revision != target]
    ready = sum(_ready(replica, policy, now) for replica in mine)
    start = _starts(view, len(mine), ready, others, now)
    stop = _stops(view, mine, others, now)
    peak = max(view.peak, ready) if view.rolling else view.peak
    done = ready == view.wanted == len(mine) and not others
    outcome = None
    if target == view.current and done and (view.rolling or view.failed):
        outcome = Outcome.COMPLETE
    elif view.rolling and peak == view.peak and now >= view.progressed + policy.progress_deadline:
        outcome = Outcome.FAILED
    forgive = tuple(
        revision
        for revision, backoff in sorted(view.backoffs.items())
        if backoff.failures and _calm(view, revision, now)
    )
    failures = 0 if target in forgive else view.backoffs.get(target, Backoff()).failures
    condition = _condition(view, done, failures)
    return Plan(start, stop, outcome, condition, ready, peak, forgive, _look_at(view, now))


def _ready(replica: Replica, policy: Policy, now: float) -> bool:
    return replica.running is not None and replica.running + policy.min_ready <= now


def _calm(view: View, revision: int, now: float) -> bool:
    """Whether all replicas of a revision have run for long enough to forget its early ends."""
    its = [replica for replica in view.replicas if replica.revision == revision]
    complete = len(its) >= view.wanted if revision == view.target else bool(its)
    return complete and all(
        replica.running is not None and replica.running + view.policy.settled <= now for replica in its
    )


def _starts(view: View, mine: int, ready: int, others: Sequence[Replica], now: float) -> tuple[int, ...]:
    """Replicas of the target up to what is wanted; while it crashes, of the stable one up to the floor."""
    room = view.wanted + view.policy.max_surge - len(view.replicas)
    start: list[int] = []

    def add(revision: int, missing: int) -> None:
        if now >= view.backoffs.get(revision, Backoff()).retry_at:
            start.extend([revision] * max(0, min(missing, room - len(start))))

    target = view.target
    add(target, view.wanted - mine)
    crashing = view.backoffs.get(target, Backoff()).failures > 0
    if view.stable is not None and view.stable != target and crashing:
        add(view.stable, view.wanted - view.policy.max_unavailable - ready - len(others))
    return tuple(start)


def _stops(view: View, mine: Sequence[Replica], others: Sequence[Replica], now: float) -> tuple[int, ...]:
    """Others, and what is too much of the target: what does not serve at once, what serves as far as the floor."""
    policy = view.policy
    floor = max(0, view.wanted - policy.max_unavailable)
    serving = [replica for replica in others if replica.running is not None]
    serving += [replica for replica in mine if _ready(replica, policy, now)]
    useful = {replica.id for replica in serving}
    # Those that wait first, then the youngest.
    by_age = sorted(mine, key=lambda replica: (replica.running is not None, -(replica.running or 0.0), -replica.id))
    extra = by_age[: max(0, len(mine) - view.wanted)]
    crashing = view.backoffs.get(view.target, Backoff()).failures > 0
    kept = view.stable if crashing and view.stable != view.target else None
    stop: list[int] = []
    spare = len(serving) - floor
    # Those that are to hold the floor while the target crashes are not stopped while they wait for their place.
    waiting_kept = max(0, floor - len(serving))
    for replica in [*sorted(others, key=lambda one: (one.running is not None, one.id)), *extra]:
        if replica.id in useful:
            if spare <= 0:
                continue
            spare -= 1
        elif replica.revision == kept and replica.running is None and waiting_kept > 0:
            waiting_kept -= 1
            continue
        stop.append(replica.id)
    return tuple(stop)


def _condition(view: View, done: bool, failures: int) -> Condition:
    if view.wanted == 0:
        return Condition.STOPPING if view.replicas else Condition.STOPPED
    if failures >= CRASH_LOOP:
        return Condition.CRASH_LOOP
    if done:
        return Condition.READY
    return Condition.STARTING if view.rolling else Condition.DEGRADED


def _look_at(view: View, now: float) -> float | None:
    """The next time at which something may be due without anything having happened."""
    policy = view.policy
    times = [backoff.retry_at for backoff in view.backoffs.values()]
    if view.rolling:
        times.append(view.progressed + policy.progress_deadline)
    crashed = any(backoff.failures for backoff in view.backoffs.values())
    for replica in view.replicas:
        if replica.running is not None:
            times.append(replica.running + policy.min_ready)
            if crashed:
                times.append(replica.running + policy.settled)
    return min((at for at in times if at > now), default=None)
