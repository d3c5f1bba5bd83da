"""Replicas of a service: a small world in which they start, crash and stop as it pleases."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.services import Backoff, Condition, Outcome, Policy, Replica, View, after_end, decide

POLICY = Policy(min_ready=5, progress_deadline=100, delay=1, max_delay=30, settled=60)


@dataclass
class World:
    """A service with its replicas; `bad` revisions crash a second after their start."""

    wanted: int
    policy: Policy = POLICY
    bad: frozenset[int] = frozenset()
    current: int = 1
    stable: int | None = None
    rolling: bool = True
    failed: bool = False
    now: float = 1000.0
    progressed: float = 1000.0
    peak: int = 0
    replicas: list[Replica] = field(default_factory=list)
    backoffs: dict[int, Backoff] = field(default_factory=dict)
    made: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    look_at: float | None = None

    def view(self) -> View:
        return View(
            self.wanted, self.current, self.stable, self.rolling, self.failed, self.progressed, self.peak,
            tuple(self.replicas), dict(self.backoffs), self.policy,
        )  # fmt: skip

    def deploy(self, revision: int) -> None:
        self.current, self.rolling, self.failed, self.progressed, self.peak = revision, True, False, self.now, 0

    def serving(self) -> int:
        """Replicas that serve: of the target once they are ready, of others while they run."""
        target = self.view().target
        return sum(
            one.running is not None
            and not one.stopping
            and (one.revision != target or one.running + self.policy.min_ready <= self.now)
            for one in self.replicas
        )

    def look(self) -> Condition:
        """One pass, with the promises that every pass keeps."""
        view, before, live = self.view(), self.serving(), len(self.replicas)
        plan = decide(view, self.now)
        if plan.start:
            assert live + len(plan.start) <= self.wanted + self.policy.max_surge, "above the ceiling"
        stopped = {one.id for one in self.replicas if one.id in plan.stop}
        assert len(stopped) == len(plan.stop)
        self.look_at = plan.look_at
        self.replicas = [replace(one, stopping=one.stopping or one.id in stopped) for one in self.replicas]
        after = self.serving()
        floor = self.wanted - self.policy.max_unavailable
        assert after == before or after >= floor, "a replica that serves was stopped below the floor"
        for revision in plan.start:
            assert self.now >= self.backoffs.get(revision, Backoff()).retry_at
            self.made += 1
            self.replicas.append(Replica(self.made, revision))
        for revision in plan.forgive:
            self.backoffs[revision] = Backoff()
        if plan.peak > self.peak:
            self.peak, self.progressed = plan.peak, self.now
        if plan.outcome is not None:
            self.outcomes.append(plan.outcome)
            self.rolling, self.failed = False, plan.outcome == Outcome.FAILED
            if plan.outcome == Outcome.COMPLETE:
                self.stable = self.current
        return plan.condition

    def end(self, replica: Replica) -> None:
        """A replica ends; one that was stopped counts for nothing."""
        self.replicas.remove(replica)
        if not replica.stopping:
            lived = self.now - replica.running if replica.running is not None else 0.0
            known = self.backoffs.get(replica.revision, Backoff())
            self.backoffs[replica.revision] = after_end(
                known, lived=lived, at=self.now, policy=self.policy, seed=replica.id
            )

    def tick(self, seconds: float = 1.0) -> Condition:
        """What waits starts, what is to stop has stopped, bad ones crash; then a pass."""
        self.now += seconds
        for one in list(self.replicas):
            if one.stopping or (one.revision in self.bad and one.running is not None):
                self.end(one)
            elif one.running is None:
                self.replicas[self.replicas.index(one)] = replace(one, running=self.now)
        return self.look()

    def settle(self, seconds: float = 400) -> Condition:
        """Go on for so long, looking only when something happens and when the plan has asked for it."""
        end = self.now + seconds
        condition = self.look()
        while self.now < end:
            moving = any(one.stopping or one.running is None or one.revision in self.bad for one in self.replicas)
            due = self.now + 1 if moving else self.look_at
            if due is None:
                break
            condition = self.tick(due - self.now)
        return condition

    def revisions(self) -> list[int]:
        return sorted(one.revision for one in self.replicas if not one.stopping)


def settled(wanted: int = 3, **policy: int) -> World:
    """A service whose first revision is rolled out."""
    world = World(wanted, replace(POLICY, **policy))
    assert world.settle(20) == Condition.READY
    return world


def test_the_first_revision_comes_up_and_is_then_stable() -> None:
    world = World(3)
    assert world.look() == Condition.STARTING
    assert world.revisions() == [1, 1, 1]
    world.settle(20)
    assert world.outcomes == [Outcome.COMPLETE] and world.stable == 1


def test_a_roll_exchanges_one_after_the_other() -> None:
    world = settled(3)
    world.deploy(2)
    seen = []
    for _ in range(60):
        world.tick()
        if not seen or seen[-1] != world.revisions():
            seen.append(world.revisions())
    assert seen[0] == [1, 1, 1, 2] and seen[-1] == [2, 2, 2]
    assert all(len(one) <= 4 for one in seen) and world.stable == 2


def test_without_surge_an_old_one_goes_first() -> None:
    world = settled(2, max_surge=0, max_unavailable=1)
    world.deploy(2)
    world.tick()
    assert world.revisions() == [1]
    world.settle(60)
    assert world.revisions() == [2, 2] and world.outcomes[-1] == Outcome.COMPLETE


@pytest.mark.parametrize("policy", [{}, {"max_surge": 0, "max_unavailable": 1}, {"max_surge": 3}])
def test_a_revision_that_crashes_fails_and_the_old_ones_stay(policy: dict[str, int]) -> None:
    world = settled(3, **policy)
    world.bad = frozenset({2})
    world.deploy(2)
    worst = 3
    for _ in range(300):
        world.tick()
        worst = min(worst, world.revisions().count(1))
    assert worst >= 3 - world.policy.max_unavailable
    assert world.outcomes[-1] == Outcome.FAILED
    assert world.revisions() == [1, 1, 1] and world.stable == 1
    world.bad = frozenset()
    world.deploy(2)
    world.settle(100)
    assert world.revisions() == [2, 2, 2]


def test_old_ones_that_crash_are_replaced_while_the_new_ones_crash() -> None:
    world = settled(3)
    world.bad = frozenset({2})
    world.deploy(2)
    for _ in range(20):
        world.tick()
    world.end(next(one for one in world.replicas if one.revision == 1 and not one.stopping))
    for _ in range(10):
        world.tick()
    assert world.revisions().count(1) == 3 and not world.outcomes[1:]


def test_what_always_crashes_is_started_less_and_less_and_called_a_crash_loop() -> None:
    world = World(2, bad=frozenset({1}))
    assert world.settle(200) == Condition.CRASH_LOOP
    assert world.outcomes == [Outcome.FAILED]
    early = world.made
    world.settle(90)
    assert 2 <= world.made - early <= 8, "every half a minute, both together"
    world.bad = frozenset()
    assert world.settle(200) == Condition.READY
    assert world.outcomes == [Outcome.FAILED, Outcome.COMPLETE] and world.backoffs[1] == Backoff()


def test_the_back_off_counts_rounds_and_forgets_after_a_long_life() -> None:
    first = after_end(Backoff(), lived=1, at=100, policy=POLICY, seed=1)
    assert first.failures == 1 and 100.9 <= first.retry_at <= 101.1
    assert after_end(first, lived=1, at=100.5, policy=POLICY, seed=2) == first
    second = after_end(first, lived=1, at=102, policy=POLICY, seed=3)
    assert second.failures == 2 and 103.8 <= second.retry_at <= 104.2
    assert after_end(second, lived=60, at=200, policy=POLICY, seed=4) == Backoff()


def test_scaling_stops_the_youngest_and_zero_stops_all() -> None:
    world = settled(3)
    world.wanted = 1
    world.settle(5)
    assert [one.id for one in world.replicas] == [1]
    world.wanted = 0
    world.look()
    assert world.look() == Condition.STOPPING
    assert world.settle(2) == Condition.STOPPED and not world.replicas


ACTIONS = st.one_of(
    st.tuples(st.just("deploy"), st.integers(1, 4)),
    st.tuples(st.just("scale"), st.integers(0, 6)),
    st.tuples(st.just("crash"), st.integers(0, 50)),
    st.tuples(st.just("evict"), st.integers(0, 50)),
    st.tuples(st.just("tick"), st.integers(1, 40)),
)


@settings(max_examples=100, deadline=None)
@given(
    wanted=st.integers(0, 5),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    bad=st.frozensets(st.integers(1, 4), max_size=3),
    actions=st.lists(ACTIONS, max_size=25),
)
def test_whatever_happens_it_keeps_its_promises_and_comes_to_rest(
    wanted: int, surge: int, unavailable: int, bad: frozenset[int], actions: list[tuple[str, int]]
) -> None:
    """`look` checks floor and ceiling at every pass; at the end every rollout has ended, and what is wanted is there
    unless the target itself is bad."""
    policy = replace(POLICY, max_surge=surge or (0 if unavailable else 1), max_unavailable=unavailable)
    world = World(wanted, policy, bad)
    for action, number in actions:
        if action == "deploy":
            world.deploy(number)
        elif action == "scale":
            world.wanted = number
        elif action == "tick":
            for _ in range(number):
                world.tick()
        elif world.replicas:
            one = world.replicas[number % len(world.replicas)]
            if action == "crash":
                world.end(one)
            elif one.running is not None:  # Its node was lost: the job waits again, the replica is the same.
                world.replicas[world.replicas.index(one)] = replace(one, running=None)
        world.look()
    condition = world.settle(100 * (world.wanted + 1) + 200)
    assert not world.rolling
    if world.view().target not in bad:
        assert world.revisions() == [world.view().target] * world.wanted
        assert condition == (Condition.READY if world.wanted else Condition.STOPPED)
        assert not decide(world.view(), world.now).start and not decide(world.view(), world.now).stop
    else:
        assert set(world.revisions()) <= {world.view().target}
