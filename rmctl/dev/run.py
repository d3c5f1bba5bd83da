"""A whole run: every task when its upstream tasks are done, one at a time, in the order of the graph."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rmctl.runner import FAIL_STATUS, SKIP_STATUS
from rmctl.sdk.compile import CompiledWorkflow
from rmctl.spec import ArgumentError, BadValue, CompiledTask
from rmctl.spec.datasets import words
from rmctl.spec.errors import describe
from rmctl.spec.kinds import Approval, Poke, TriggerRun, WaitForDataset, WaitForRun
from rmctl.spec.moments import moment_in
from rmctl.spec.quantities import parse_seconds
from rmctl.spec.service import DeployService

from . import told
from .answers import NoAnswer, answer
from .execute import Ended, Machine
from .interval import interval_of
from .plan import BAD, FAILED, SKIPPED, SUCCEEDED, Plan
from .show import Show, preview

# How often a sensor is poked here at most; its own interval is for the portal.
POKE_SECONDS = 1.0
RUN_ID = "dev"


@dataclass(slots=True)
class Options:
    """What the author asked for. `only` is a task that is run with all that it depends on."""

    params: dict[str, Any]
    logical_time: datetime
    only: str | None = None
    wait: bool = True
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ask: Callable[[str, str], str] = lambda question, default: default


@dataclass(slots=True)
class _End:
    """How a task ended; `stops` if everything behind it is left out."""

    state: str
    result: Any = None
    detail: str = ""
    line: tuple[str, int] | None = None
    stops: bool = False


class Run:
    """One run of a workflow; `states`, `results` and `state` say how it went."""

    def __init__(self, workflow: CompiledWorkflow, machine: Machine, show: Show, options: Options) -> None:
        self.spec, self.machine, self.show, self.options = workflow.spec, machine, show, options
        definition = self.spec.definition
        self.zone = ZoneInfo(definition["timezone"])
        self.logical_time = options.logical_time.astimezone(self.zone)
        interval = interval_of(definition, self.logical_time)
        self.interval = [moment.isoformat() for moment in interval] if interval else []
        self.plan = Plan(definition, Plan(definition).before(options.only) if options.only else None)
        self.groups = _groups(definition)
        self.results: dict[str, Any] = {}
        self.state = ""

    @property
    def states(self) -> dict[str, str]:
        """How each task ended."""
        return self.plan.states

    def go(self) -> None:
        """Run to the end."""
        if not any(task.get("state") for task in self.plan.tasks.values()):
            self._go()
            return
        # Loaded only by workflows that keep something.
        from .state import StateServer

        server = StateServer(self.machine.folder)
        self.machine.state = server.path
        try:
            self._go()
        finally:
            server.close()

    def _go(self) -> None:
        begun = time.monotonic()
        facts = self.logical_time.isoformat(timespec="seconds")
        if self.options.params:
            facts += f"  {preview(self.options.params)}"
        self.show.header(self.spec.name, len(self.plan.tasks), facts)
        for said in told.of_run(self.spec.definition):
            self.show.note(f"not heeded here: {said}")
        while (name := self.plan.next()) is not None:
            task = self.spec.compiled[name]
            self.show.begin(name, self._kind(task))
            ended = self._task(task)
            left_out: list[str] = []
            if ended.state == SUCCEEDED or ended.stops:
                try:
                    left_out = self._left_out(task, ended)
                except ArgumentError as error:
                    ended = _End(FAILED, ended.result, str(error))
            self.results[name] = ended.result
            self.show.end(name, ended.state, ended.detail, ended.result, ended.line)
            if ended.state == FAILED:
                self._tell(self.plan.tasks[name], "failure", f"{name} has failed")
            for other in self.plan.end(name, ended.state, left_out):
                why = f"{name} goes another way" if other in left_out else self._why(other)
                self.show.dropped(other, self.plan.states[other], why)
        self.state = self.plan.outcome()
        occasion = "success" if self.state == SUCCEEDED else "failure"
        self._tell(self.spec.definition, occasion, f"the run has {self.state}")
        self._keep_results()
        self.show.summary(self.spec.name, self.state, time.monotonic() - begun, self.machine.folder)

    def _kind(self, task: CompiledTask) -> str:
        raw = self.plan.tasks[task.id]
        words = [f"{raw['function']} in {raw['file']}" if "function" in raw else task.kind]
        if task.base["groups"][0].get("image"):
            words.append(f"here without its image {task.base['groups'][0]['image']}")
        return ", ".join([*words, *told.of_task(raw)])

    def _tell(self, source: Mapping[str, Any], occasion: str, of: str) -> None:
        """Show whom the portal would tell."""
        if to := told.hearers(source, occasion):
            self.show.note(f"would tell {', '.join(to)}: {of}")

    def _why(self, name: str) -> str:
        before = [f"{other} {how}" for other in self.plan.upstream[name] if (how := self.states.get(other)) is not None]
        return f"{self.plan.tasks[name]['trigger_rule']}: {', '.join(before)}"

    def _keep_results(self) -> None:
        kept = {"state": self.state, "tasks": self.states, "results": self.results}
        path = self.machine.folder / "run.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")

    # One task

    def _task(self, task: CompiledTask) -> _End:
        try:
            if task.kind == "empty":
                return _End(SUCCEEDED)
            if task.mapped:
                return self._mapped(task)
            inputs = task.resolve(self.results, self.options.params)
            return self._waits(task, inputs) if task.jobless else self._job(task, inputs)
        except ArgumentError as error:
            return _End(FAILED, detail=str(error))

    def _mapped(self, task: CompiledTask) -> _End:
        expansion = task.expansion(self.results, self.options.params)
        if not expansion.width:
            return _End(SKIPPED, detail="There was nothing to map over.")
        ends = []
        for index in range(expansion.width):
            item = expansion.item(index)
            inputs = task.resolve(self.results, self.options.params, item=item)
            self.show.note(f"[{index}] {task.named(index, inputs, self.options.params) or preview(item)}")
            end = self._waits(task, inputs) if task.jobless else self._job(task, inputs, index)
            if end.state == FAILED and end.detail:
                self.show.note(f"[{index}] failed: {end.detail}")
            ends.append(end)
        failed = [end for end in ends if end.state in BAD]
        results = [end.result for end in ends]
        # One that is rejected stops what is behind all of them.
        stops = any(end.stops for end in ends)
        if failed:
            line = next((end.line for end in failed if end.line is not None), None)
            return _End(FAILED, results, f"{len(failed)} of {len(ends)} instances did not succeed.", line, stops)
        return _End(SKIPPED if all(end.state == SKIPPED for end in ends) else SUCCEEDED, results, stops=stops)

    def _job(self, task: CompiledTask, inputs: Mapping[str, Any], index: int | None = None) -> _End:
        job = task.job(
            inputs, run_id=RUN_ID, logical_time=self.logical_time.isoformat(), map_index=index,
            params=self.options.params, interval=self.interval,
        )  # fmt: skip
        # A task's id may be no good name of a folder.
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", task.id) + ("" if index is None else f"[{index}]")
        if isinstance(task.options, Poke):
            return self._poked(task.options, job, task, name)
        return _end(self.machine.run(task, job, name, self.show.output))

    def _poked(self, options: Poke, job: Mapping[str, Any], task: CompiledTask, name: str) -> _End:
        """A sensor: poked until it is done or its time is over."""
        begun = time.monotonic()
        while True:
            ended = _end(self.machine.run(task, job, name, self.show.output))
            if ended.state != SUCCEEDED:
                return ended
            poke = ended.result
            if not isinstance(poke, dict) or not isinstance(poke.get("done"), bool):
                return _End(FAILED, detail=f"A poke must say whether it is done; it returned {describe(poke)}.")
            if poke["done"]:
                return _End(SUCCEEDED, poke.get("value"))
            if not self.options.wait:
                return _End(SUCCEEDED, poke.get("value"), "It found nothing yet and is passed over (--no-wait).")
            if time.monotonic() - begun >= options.timeout:
                return _End(SKIPPED if options.soft_fail else FAILED, detail="Its time is over.")
            pause = min(POKE_SECONDS, options.interval)
            self.show.note(f"nothing yet, poked again in {pause:g} s (in the portal {options.interval} s)")
            time.sleep(pause)

    def _waits(self, task: CompiledTask, inputs: Mapping[str, Any]) -> _End:
        """A task without a job: shown and passed over, or answered."""
        match task.options:
            case Approval() as asked:
                return self._approval(task, asked, inputs)
            case TriggerRun() as options:
                given = f" with {preview(dict(inputs))}" if inputs else ""
                self.show.note(f"would start a run of {options.workflow}{given}")
                return _End(SUCCEEDED, {"run": None, "state": "succeeded" if options.wait else "queued"})
            case DeployService() as options:
                return self._deployment(options, inputs)
            case WaitForRun() as options:
                self.show.note(f"would wait for a run of {options.workflow}; passed over")
                return _End(SUCCEEDED, {"run": None, "state": options.allowed[0]})
            case WaitForDataset() as options:
                self.show.note(f"would wait for {words(options.datasets)}; passed over")
                return _End(SUCCEEDED, {})
        try:
            if task.kind == "wait_until":
                until = moment_in(inputs["time"], self.zone, datetime.now(self.zone))
                self.show.note(f"would wait until {until:%Y-%m-%d %H:%M:%S %Z}; passed over")
            elif task.kind == "wait_for":
                self.show.note(f"would wait for {parse_seconds(inputs['duration'])} s; passed over")
            else:
                self.show.note("would wait; passed over")
        except BadValue as error:
            raise ArgumentError(f"{task.id}: {error.message}") from None
        return _End(SUCCEEDED)

    def _deployment(self, options: DeployService, inputs: Mapping[str, Any]) -> _End:
        """What would be deployed is shown, and no more."""
        self.show.note(f"would deploy service {options.spec.name}: {preview(options.deployment(inputs))}")
        state = "complete" if options.wait else "rolling"
        return _End(SUCCEEDED, {"service": options.spec.name, "revision": None, "state": state})

    def _approval(self, task: CompiledTask, asked: Approval, inputs: Mapping[str, Any]) -> _End:
        self.show.note(asked.subject)
        for source in (self.spec.definition, self.plan.tasks[task.id]):
            self._tell(source, "approval", f"{task.id} asks")
        for text in (asked.text, *(f"{name}: {preview(value)}" for name, value in inputs.items())):
            if text:
                self.show.note(text)
        try:
            result = answer(task.id, asked, self.options.answers.get(task.id), self.options.ask)
        except NoAnswer as error:
            return _End(FAILED, detail=f"{error}.")
        return _End(SUCCEEDED, result, stops=result["option"] in asked.reject)

    # What follows

    def _left_out(self, task: CompiledTask, ended: _End) -> list[str]:
        """What a branch, a condition or a rejection leaves out. Raises ArgumentError for a choice that is none."""
        if ended.stops or (task.decides == "short_circuit" and not ended.result):
            return self.plan.left_out_by_condition(task.id, direct=task.direct)
        if task.decides != "branch":
            return []
        below = self.plan.below[task.id]
        chosen: set[str] = set()
        names = ended.result if isinstance(ended.result, list) else [] if ended.result is None else [ended.result]
        for name in names:
            inside = self.groups.get(name, [name]) if isinstance(name, str) else []
            members = [other for other in inside if other in below]
            if not members and not (self.options.only and name in self.spec.compiled):
                there = ", ".join(below) or "nothing: no task is behind it"
                raise ArgumentError(f"It returned {describe(name)}, which is not directly behind it: {there}.")
            chosen.update(members)
        return self.plan.left_out_by_branch(task.id, chosen)


def _end(ended: Ended) -> _End:
    """What an exit status means."""
    if ended.status == SKIP_STATUS:
        return _End(SKIPPED, detail=ended.detail)
    if ended.status == FAIL_STATUS:
        return _End(FAILED, detail=ended.detail or "It has given up.", line=ended.line)
    state = SUCCEEDED if ended.status == 0 else FAILED
    return _End(state, ended.result if state == SUCCEEDED else None, ended.detail, ended.line)


def _groups(definition: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every task of each group, those of inner groups included."""
    parents = {group["id"]: group.get("parent") for group in definition.get("groups", ())}
    found: dict[str, list[str]] = {name: [] for name in parents}
    for task in definition["tasks"]:
        owner = task.get("group")
        while owner is not None:
            found[owner].append(task["id"])
            owner = parents[owner]
    return found

