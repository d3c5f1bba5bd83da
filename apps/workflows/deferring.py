"""What a task that waits does when it begins and when its wait is looked at: decided from rows, written by the pass."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.core.errors import DomainError
from engine.waits import next_poke
from rmctl.spec import ArgumentError, BadValue, CompiledTask, SpecError
from rmctl.spec.datasets import holds, uris
from rmctl.spec.errors import describe
from rmctl.spec.kinds import Approval, Options, Poke, TriggerRun, WaitForDataset, WaitForRun
from rmctl.spec.moments import moment_in
from rmctl.spec.quantities import format_duration, parse_seconds
from rmctl.spec.service import DeployService

from . import externals
from .commands.datasets import datasets_named
from .commands.runs import checked_params
from .dataset_waits import silent, since_of, told, updated_since
from .models import Run, Wait
from .plans import Plan, plan_of
from .states import TaskState
from .timetable import YEARS
from .waits import DEPTH_MAX, Changes, Child, Question, WaitRow, chain_of, workflow_named

# A wait for a run or a dataset is looked at again so soon: what it waits for may have come while it began.
SECOND_LOOK = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class End:
    """How a wait ends: the task's state, what it says and its result."""

    state: str
    detail: str = ""
    result: Any = None


class Deferring:
    """The waits of one run during a pass."""

    def __init__(self, run: Run, plan: Plan, now: datetime) -> None:
        self.run, self.plan, self.now = run, plan, now
        self.changes = Changes()

    def _moment(self, at: datetime) -> str:
        return f"{at.astimezone(self.plan.zone):%Y-%m-%d %H:%M:%S %Z}"

    # Beginning

    def begin(self, row: Any, task: CompiledTask, inputs: Mapping[str, Any]) -> str:
        """Let a task without a job begin to wait; returns what it waits for. Raises ArgumentError when it cannot."""
        match task.options:
            case WaitForRun() as options:
                return self._wait_for_run(row, options, inputs)
            case WaitForDataset() as options:
                return self._wait_for_dataset(row, options, inputs)
            case TriggerRun() as options:
                return self._trigger(row, options, inputs)
            case Approval() as options:
                return self._ask(row, options, inputs)
            case DeployService() as options:
                return self._hand_over(row, task.kind, options, inputs)
        return self._wait_for_time(row, task, inputs)

    def _wait_for_time(self, row: Any, task: CompiledTask, inputs: Mapping[str, Any]) -> str:
        try:
            if task.kind == "wait_until":
                due = moment_in(inputs["time"], self.plan.zone, self.now)
            else:
                due = self.now + timedelta(seconds=parse_seconds(inputs["duration"]))
        except BadValue as error:
            raise ArgumentError(f"{row}: {error.message}") from None
        if due.year not in YEARS:
            raise ArgumentError(f"{row} waits until {due}: give a time from {YEARS[0]} to {YEARS[-1]}.")
        self._keep(row, Wait.Kind.TIME, due_at=max(due, self.now))
        return f"Waits until {self._moment(due)}."

    def _wait_for_run(self, row: Any, options: WaitForRun, inputs: Mapping[str, Any]) -> str:
        workflow = workflow_named(self.run.tenant_id, options.workflow)
        if workflow is None:
            raise ArgumentError(f"{row} waits for a run of {options.workflow}: this tenant has no such workflow.")
        at = self.run.logical_time
        try:
            if inputs.get("logical_time") is not None:
                at = moment_in(inputs["logical_time"], self.plan.zone, self.now)
            if inputs.get("before") is not None:
                at -= timedelta(seconds=parse_seconds(inputs["before"]))
        except (BadValue, OverflowError) as error:
            raise ArgumentError(f"{row}: {getattr(error, 'message', error)}") from None
        deadline = self.now + timedelta(seconds=options.timeout)
        self._keep(
            row, Wait.Kind.RUN, due_at=self.now, deadline=deadline, workflow=workflow.pk, logical_time=at
        )
        return (
            f"Waits for the run of {options.workflow} with the logical time {self._moment(at)}, "
            f"until {self._moment(deadline)}."
        )

    def _wait_for_dataset(self, row: Any, options: WaitForDataset, inputs: Mapping[str, Any]) -> str:
        try:
            since = since_of(self.run, options, inputs, self.plan.zone, self.now)
        except (BadValue, OverflowError) as error:
            raise ArgumentError(f"{row}: {getattr(error, 'message', error)}") from None
        datasets = [dataset.pk for dataset in datasets_named(self.run.tenant_id, uris(options.datasets)).values()]
        deadline = self.now + timedelta(seconds=options.timeout)
        self._keep(
            row, Wait.Kind.DATASET, due_at=self.now, deadline=deadline, datasets=datasets, updated_since=since
        )
        return (
            f"Waits until {told(options)} has been updated since {self._moment(since)}, "
            f"at the latest until {self._moment(deadline)}."
        )

    def _trigger(self, row: Any, options: TriggerRun, inputs: Mapping[str, Any]) -> str:
        workflow = workflow_named(self.run.tenant_id, options.workflow)
        if workflow is None or workflow.current is None:
            raise ArgumentError(f"{row} starts a run of {options.workflow}: this tenant has no such workflow.")
        if self.run.depth >= DEPTH_MAX:
            chain = " → ".join([*chain_of(self.run), workflow.name])
            raise ArgumentError(
                f"{row} would start one run more in a chain of {DEPTH_MAX} that start each other: {chain}. "
                "Workflows that start each other in a circle are stopped here."
            )
        try:
            params = checked_params(workflow.current, inputs)
            plan_of(workflow.current.pk)
        except (DomainError, SpecError) as error:
            raise ArgumentError(f"{row} starts a run of {options.workflow}: {error}") from None
        at = self.run.logical_time if options.logical_time == "own" else self.now
        self.changes.children.append((row, Child(workflow, workflow.current, params, at, options.no_cache)))
        deadline = self.now + timedelta(seconds=options.timeout) if options.wait else None
        self._keep(row, Wait.Kind.TRIGGER, due_at=self.now, deadline=deadline)
        until = f", and waits for its end until {self._moment(deadline)}" if deadline else ""
        return f"Starts a run of {options.workflow}{until}."

    def _ask(self, row: Any, options: Approval, inputs: Mapping[str, Any]) -> str:
        deadline = self.now + timedelta(seconds=options.timeout)
        question = Question(
            {
                "tenant_id": self.run.tenant_id,
                "subject": options.subject,
                "text": options.text,
                "options": list(options.options),
                "form": options.form,
                "users": list(options.users),
                "roles": options.asked_roles,
                "shown": dict(inputs),
                "expires_at": deadline,
            }
        )
        self.changes.questions.append((row, question))
        self._keep(row, Wait.Kind.APPROVAL, due_at=deadline, deadline=deadline)
        asked = ", ".join([*options.users, *(f"every {role} of the tenant" for role in options.asked_roles)])
        return f'Asks "{options.subject}"; the answer may come from {asked} until {self._moment(deadline)}.'

    def _hand_over(self, row: Any, kind: str, options: DeployService, inputs: Mapping[str, Any]) -> str:
        try:
            begun = externals.of_kind(kind).begin(self.run, options, inputs)
        except (DomainError, SpecError) as error:
            raise ArgumentError(f"{row}: {error}") from None
        deadline = self.now + timedelta(seconds=options.timeout) if options.wait else None
        self._keep(row, Wait.Kind.EXTERNAL, due_at=self.now, deadline=deadline, reference=begun.reference)
        return begun.detail + (f" At the latest until {self._moment(deadline)}." if deadline else "")

    def _keep(self, row: Any, kind: str, **fields: Any) -> None:
        self.changes.waits.append((row, WaitRow(kind, self.now, **fields)))

    # Sensors

    def poke(self, row: Any, options: Poke, wait: WaitRow | None) -> None:
        """A poke begins: the first one starts the time that the sensor has."""
        if wait is None:
            wait = WaitRow(Wait.Kind.POKE, self.now, None, self.now + timedelta(seconds=options.timeout))
        wait = replace(wait, looks=wait.looks + 1, due_at=None)
        self.changes.waits.append((row, wait))
        if wait.deadline is not None:
            row.detail = f"Poke {wait.looks}; at the latest until {self._moment(wait.deadline)}."

    def stop(self, row: Any, wait: WaitRow) -> None:
        """A sensor waits for places before its next poke: the clock has nothing to say meanwhile."""
        self.changes.waits.append((row, replace(wait, due_at=None)))

    def poked(self, row: Any, options: Poke, wait: WaitRow | None, result: Any) -> End | str:
        """A poke has returned: how the sensor ends, or what it waits for."""
        if not isinstance(result, dict) or not isinstance(result.get("done"), bool):
            return End(TaskState.FAILED, f"A poke must say whether it is done; it returned {describe(result)}.")
        if wait is None or wait.deadline is None:
            return End(TaskState.FAILED, "What it waited for was forgotten.")
        if result["done"]:
            return End(TaskState.SUCCEEDED)
        due = next_poke(
            interval=options.interval,
            factor=options.factor,
            cap=options.max_interval,
            pokes=wait.looks,
            now=self.now.timestamp(),
            deadline=wait.deadline.timestamp(),
        )
        if due is None:
            return self._over(options, wait, f"{wait.looks} pokes found nothing")
        at = datetime.fromtimestamp(due, UTC)
        self.changes.waits.append((row, replace(wait, due_at=at)))
        times = "once" if wait.looks == 1 else f"{wait.looks} times"
        return (
            f"Poked {times} without success; the next time at {self._moment(at)}, "
            f"at the latest until {self._moment(wait.deadline)}."
        )

    # Looking

    def look(self, row: Any, task: CompiledTask, wait: WaitRow) -> End | None:
        """Look at a wait that may be over: how it ends, or None while it goes on."""
        due = wait.due_at is not None and wait.due_at <= self.now
        match task.options:
            case TriggerRun() as options if not options.wait:
                return End(TaskState.SUCCEEDED, "", {"run": wait.found_run, "state": wait.found_state})
            case WaitForRun() | TriggerRun() as options:
                return self._look_at_run(row, options, wait)
            case WaitForDataset() as options:
                return self._look_at_datasets(row, options, wait)
            case Approval() as options:
                return self._look_at_answer(options, wait)
            case DeployService() as options:
                return self._look_elsewhere(row, task.kind, options, wait)
        return End(TaskState.SUCCEEDED) if due else None

    def _look_at_run(self, row: Any, options: WaitForRun | TriggerRun, wait: WaitRow) -> End | None:
        result = {"run": wait.found_run, "state": wait.found_state}
        match options.ends(wait.found_state):
            case "good":
                return End(TaskState.SUCCEEDED, "", result)
            case "bad":
                detail = f"Run {wait.found_run} of {options.workflow} has {_ended(wait.found_state)}."
                return End(TaskState.FAILED, detail, result)
        if wait.kind == Wait.Kind.TRIGGER and wait.found_run is None:
            return End(TaskState.FAILED, f"The run of {options.workflow} that it started was deleted.")
        if wait.deadline is not None and self.now >= wait.deadline:
            there = f"run {wait.found_run} is {wait.found_state}" if wait.found_run else "there was no such run"
            return self._over(options, wait, there)
        return self._look_again(row, wait)

    def _look_at_datasets(self, row: Any, options: WaitForDataset, wait: WaitRow) -> End | None:
        since = wait.updated_since or wait.since
        updates = updated_since(self.run.tenant_id, options, since)
        if holds(options.datasets, updates):
            return End(TaskState.SUCCEEDED, "", updates)
        if wait.deadline is not None and self.now >= wait.deadline:
            what = f"no update of {silent(options, updates)} since {self._moment(since)}"
            return self._over(options, wait, what)
        return self._look_again(row, wait)

    def _look_again(self, row: Any, wait: WaitRow) -> None:
        """Let it wait on: for a first time only a moment, then to its end."""
        again = [at for at in (wait.deadline, self.now + SECOND_LOOK if wait.looks == 0 else None) if at is not None]
        self.changes.waits.append((row, replace(wait, looks=wait.looks + 1, due_at=min(again, default=None))))

    def _look_at_answer(self, options: Approval, wait: WaitRow) -> End | None:
        if wait.answer == "answered":
            result = {"option": wait.option, "values": wait.values, "by": wait.answered_by}
            said = f"{wait.answered_by or 'Somebody'} answered: {wait.option}."
            return End(TaskState.SUCCEEDED, said, result)
        if wait.deadline is None or self.now < wait.deadline:
            return None
        if wait.approval is not None:
            self.changes.expired.append((wait.approval, options.default or ""))
        if options.default is None:
            return self._over(options, wait, "nobody has answered")
        result = {"option": options.default, "values": {}, "by": None}
        said = f"Nobody answered within {format_duration(options.timeout)}: {options.default}, its default."
        return End(TaskState.SUCCEEDED, said, result)

    def _look_elsewhere(self, row: Any, kind: str, options: DeployService, wait: WaitRow) -> End | None:
        assert wait.reference is not None
        seen = externals.of_kind(kind).look(wait.reference)
        if not options.wait or seen.good:
            return End(TaskState.SUCCEEDED, seen.detail, seen.result)
        if seen.good is False:
            return End(TaskState.FAILED, seen.detail, seen.result)
        if wait.deadline is not None and self.now >= wait.deadline:
            return self._over(options, wait, seen.detail)
        again = self.now + externals.LOOK_AGAIN
        due = again if wait.deadline is None else min(again, wait.deadline)
        self.changes.waits.append((row, replace(wait, looks=wait.looks + 1, due_at=due)))
        return None

    def _over(self, options: Options, wait: WaitRow, what: str) -> End:
        state = TaskState.SKIPPED if options.soft_fail else TaskState.FAILED
        return End(state, f"Its time of {format_duration(options.timeout)} is over: {what}.")


def _ended(state: str) -> str:
    return "been cancelled" if state == "cancelled" else state
