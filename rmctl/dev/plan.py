"""Which task runs next when one runs after the other, by the rules of docs/tasks.md.

The portal decides the same with counters, for many runs at once; a test compares the two on random graphs.
"""

from collections.abc import Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

SUCCEEDED, FAILED, SKIPPED, UPSTREAM_FAILED = "succeeded", "failed", "skipped", "upstream_failed"
BAD = (FAILED, UPSTREAM_FAILED)
CLEANUP = "all_done_setup_success"


class Plan:
    """The tasks of a canonical definition, `only` some of them if given, and how those that ended have ended."""

    def __init__(self, definition: Mapping[str, Any], only: Collection[str] | None = None) -> None:
        self.tasks: dict[str, Mapping[str, Any]] = {
            task["id"]: task for task in definition["tasks"] if only is None or task["id"] in only
        }
        self.upstream = {name: [n for n in task["upstream"] if n in self.tasks] for name, task in self.tasks.items()}
        self.below: dict[str, list[str]] = {name: [] for name in self.tasks}
        for name, before in self.upstream.items():
            for other in before:
                self.below[other].append(name)
        self.order = self._ordered()
        self._position = {name: position for position, name in enumerate(self.order)}
        setups = [name for name, task in self.tasks.items() if task.get("setup")]
        self._scopes = {name: self._scope(name) for name in setups}
        self.states: dict[str, str] = {}
        # Of each task the states of its upstream tasks that ended, and the setups that it still needs.
        self._seen: dict[str, list[tuple[str, str]]] = {name: [] for name in self.tasks}
        self._needs = {name: sum(name in scope for scope in self._scopes.values()) for name in self.tasks}
        self._ready = {name for name in self.order if self._verdict(name) == "run"}
        self._started: set[str] = set()

    def _ordered(self) -> list[str]:
        missing = {name: len(before) for name, before in self.upstream.items()}
        order = [name for name, count in missing.items() if not count]
        for name in order:
            for other in self.below[name]:
                missing[other] -= 1
                if not missing[other]:
                    order.append(other)
        return order

    def behind(self, names: Iterable[str]) -> set[str]:
        """The tasks and everything that depends on them."""
        return _reached(names, self.below)

    def before(self, name: str) -> set[str]:
        """The task and everything that it depends on."""
        return _reached([name], self.upstream)

    def _scope(self, setup: str) -> set[str]:
        """The tasks that need a setup: those behind it, up to its teardowns if it has some."""
        inside = self.behind([setup]) - {setup}
        ends = [name for name in self.below[setup] if "teardown" in self.tasks[name]]
        if ends:
            inside &= _reached(ends, self.upstream)
        return {name for name in inside if "teardown" not in self.tasks[name]}

    def next(self) -> str | None:
        """The first task in the order of the graph that may run; from then on it counts as started."""
        name = min(self._ready, key=self._position.__getitem__, default=None)
        if name is not None:
            self._ready.discard(name)
            self._started.add(name)
        return name

    def end(self, name: str, state: str, leave_out: Iterable[str] = ()) -> list[str]:
        """A task has ended, and a branch or condition leaves out others. The tasks that will not run because of it.

        What was ready already is not left out: in the portal it would have started.
        """
        dropped: list[str] = []
        self.states[name] = state
        left_out = [other for other in leave_out if not self._begun(other)]
        # In the order of the graph, so that each rule sees everything that is decided above it.
        pending = [(self._position[other], other) for other in (name, *left_out)]
        heapify(pending)
        for other in left_out:
            self.states[other] = SKIPPED
            dropped.append(other)
        without: dict[str, str] = {}
        seen = {other for _, other in pending}
        while pending:
            _, other = heappop(pending)
            if not self._begun(other):
                verdict = without.get(other) or self._verdict(other)
                if verdict == "run":
                    self._ready.add(other)
                elif verdict != "wait":
                    self.states[other] = verdict
                    dropped.append(other)
            if other in self.states:
                for touched in self._hand_on(other, without) - seen:
                    seen.add(touched)
                    heappush(pending, (self._position[touched], touched))
        return dropped

    def _hand_on(self, name: str, without: dict[str, str]) -> set[str]:
        """Tell those that need or follow a task how it has ended; `without` takes how setups end what needs them.
        Returns those that are not decided yet."""
        state = self.states[name]
        for inside in self._scopes.get(name, ()):
            if state == SUCCEEDED:
                self._needs[inside] -= 1
            elif state != SKIPPED:
                without[inside] = UPSTREAM_FAILED
            else:
                without.setdefault(inside, SKIPPED)
        for below in self.below[name]:
            self._seen[below].append((name, state))
        return {other for other in (*self._scopes.get(name, ()), *self.below[name]) if not self._begun(other)}

    def _begun(self, name: str) -> bool:
        return name in self.states or name in self._started or name in self._ready

    def _verdict(self, name: str) -> str:
        """What the trigger rule says by now: `run`, `wait`, or how the task ends without running."""
        if self._needs[name]:
            return "wait"
        rule, total = self.tasks[name]["trigger_rule"], len(self.upstream[name])
        states = [self._counted(name, rule, *entry) for entry in self._seen[name]]
        good, skipped = states.count(SUCCEEDED), states.count(SKIPPED)
        bad, done = len(states) - good - skipped, len(states) == total
        if rule == "always" or not total:
            return "run"
        # What a rule does as soon as some upstream task has ended like this, in the order in which it looks.
        at_once = {
            "all_success": ((bad, UPSTREAM_FAILED), (skipped, SKIPPED)),
            "all_failed": ((good + skipped, SKIPPED),),
            "all_skipped": ((good + bad, SKIPPED),),
            "one_success": ((good, "run"),),
            "one_failed": ((bad, "run"),),
            "one_done": ((good + bad, "run"),),
            "none_failed": ((bad, UPSTREAM_FAILED),),
            "none_failed_min_one_success": ((bad, UPSTREAM_FAILED),),
            "none_skipped": ((skipped, SKIPPED),),
        }
        for count, verdict in at_once.get(rule, ()):
            if count:
                return verdict
        if not done:
            return "wait"
        match rule:
            case "one_success" | "none_failed_min_one_success" if skipped == total:
                return SKIPPED
            case "one_success":
                return UPSTREAM_FAILED
            case "one_failed" | "one_done":
                return SKIPPED
            case "all_done_setup_success" if not good:
                return UPSTREAM_FAILED if bad else SKIPPED
        return "run"

    def _counted(self, name: str, rule: str, upstream: str, state: str) -> str:
        """As what the end of an upstream task counts for a rule."""
        if rule == CLEANUP and not self.tasks[upstream].get("setup"):
            # What cleans up asks only its setups, if it has some.
            has_setups = any(self.tasks[other].get("setup") for other in self.upstream[name])
            return SKIPPED if has_setups else SUCCEEDED
        return SKIPPED if rule == "one_done" and state == UPSTREAM_FAILED else state

    def left_out_by_branch(self, name: str, chosen: Iterable[str]) -> list[str]:
        """The tasks directly behind a branch that is not followed to them, but for those a chosen one leads to."""
        kept = self.behind(chosen)
        return [other for other in self.below[name] if other not in kept and "teardown" not in self.tasks[other]]

    def left_out_by_condition(self, name: str, *, direct: bool) -> list[str]:
        """What is left out behind a condition that does not hold."""
        reached = set(self.below[name]) if direct else self.behind(self.below[name])
        return [other for other in self.order if other in reached and "teardown" not in self.tasks[other]]

    def outcome(self) -> str:
        """How a run ends whose tasks have all ended: by its leaves, as if teardowns were not there."""

        def counts(name: str) -> bool:
            teardown = self.tasks[name].get("teardown")
            return teardown is None or bool(teardown.get("fails_run"))

        leaves = [n for n in self.tasks if counts(n) and not any(counts(other) for other in self.below[n])]
        leaves = leaves or [name for name, below in self.below.items() if not below]
        return FAILED if any(self.states.get(name) in BAD for name in leaves) else SUCCEEDED


def _reached(names: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(edges[name])
    return found
