"""`rmctl submit`, `run`, `logs`, `why` and `cancel`."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmctl.cli.failures import FAILED, UsageError
from rmctl.cli.output import ago, clean, named, print_json, print_table, span, state, stderr, stdout
from rmctl.cli.session import client, pairs, tenant_of
from rmctl.client import ApiError, Client
from rmctl.sdk import bundle, yaml_loader
from rmctl.sdk.options import SdkError
from rmctl.spec import parse_job

ENDED = ("succeeded", "failed", "cancelled")
SPEC_SUFFIXES = (".yaml", ".yml", ".json")
FIRST_LOOK_SECONDS = 0.1
LONGEST_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """The options of `submit` and `run` as given."""

    command: list[str] | None
    file: Path | None
    name: str | None
    script: str | None
    cpu: str | None
    memory: str | None
    storage: str | None
    gpu: int | None
    gpu_milli: int | None
    gpu_model: list[str] | None
    count: int | None
    image: str | None
    env: list[str] | None
    secret: list[str] | None
    ship: list[str] | None
    pool: str | None
    label: list[str] | None
    priority: int | None
    time_limit: str | None
    retries: int | None
    tenant: str | None

    def body(self) -> dict[str, Any]:
        """The job: the file, with the options over it (over its first group)."""
        if len(self.command or []) == 1 and Path(self.command[0]).suffix in SPEC_SUFFIXES:
            raise UsageError(f"{self.command[0]} is no command; a job in a file is submitted with -f.")
        job = _load(self.file) if self.file else {}
        groups = job.get("groups") or [{}]
        if not isinstance(groups, list) or not isinstance(groups[0], dict):
            return job  # The spec's own check says what is wrong.
        job["groups"] = [self._group(groups[0]), *groups[1:]]
        _put(job, name=self.name, priority=self.priority, time_limit=self.time_limit, tenant=self.tenant)
        if self.retries is not None:
            job["retries"] = {**job.get("retries", {}), "limit": self.retries}
        if self.pool or self.label:
            intent = job["intent"] = {**job.get("intent", {})}
            _put(intent, pool=self.pool)
            if self.label:
                required = {key: [value] for key, value in pairs(self.label, "--label").items()}
                require = intent.get("require", {})
                intent["require"] = {**require, "labels": {**require.get("labels", {}), **required}}
        if "name" not in job and self.command:
            job["name"] = Path(self.command[0]).name or "job"
        return job

    def _group(self, group: dict[str, Any]) -> dict[str, Any]:
        group = dict(group)
        if self.command or self.script:
            group.pop("command", None)
            group.pop("script", None)
        _put(group, command=self.command or None, script=self.script, count=self.count, image=self.image)
        for name, given in (("env", pairs(self.env, "--env")), ("secrets", pairs(self.secret, "--secret"))):
            if given:
                group[name] = {**group.get(name, {}), **given}
        resources = {**group.get("resources", {})}
        _put(resources, cpu=self.cpu, memory=self.memory, storage=self.storage)
        if self.gpu or self.gpu_milli or self.gpu_model:
            gpu = resources["gpu"] = {**(resources.get("gpu") or {})}
            _put(gpu, count=self.gpu, milli=self.gpu_milli, models=self.gpu_model or None)
        if resources:
            group["resources"] = resources
        return group


def _put(target: dict[str, Any], **values: Any) -> None:
    target.update({name: value for name, value in values.items() if value is not None})


def _load(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        data = yaml_loader.parse(content)
    except SdkError as error:
        raise UsageError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{file}: a job is an object with groups.")
    return data


def _submit(asked: Client, request: Request, *, dry_run: bool = False) -> dict[str, Any]:
    """Check here first: faults are found without the portal, and nothing is uploaded for them."""
    body = request.body()
    shipped = bundle.pack(bundle.find(Path.cwd(), request.ship)) if request.ship else None
    parse_job({**body, "bundle": bundle.digest(shipped)} if shipped else body)
    _put(body, tenant=tenant_of(body.get("tenant")))
    if shipped and not dry_run:
        body["bundle"] = asked.upload_bundle(shipped, body.get("tenant"))
    if dry_run:
        return dict(asked.post("jobs", body, dry_run=1))
    return asked.submit(body)


def submit(request: Request, dry_run: bool, as_json: bool) -> None:
    """Submit and say which number it got."""
    with client() as asked:
        job = _submit(asked, request, dry_run=dry_run)
        if as_json:
            print_json(job)
        elif dry_run:
            stdout().print("the job would be accepted")
        else:
            stdout().print(f"job {job['id']} submitted: {asked.url}/jobs/{job['id']}/")


def run(request: Request, as_json: bool) -> None:
    """Submit, follow, and end with the job's exit status."""
    with client() as asked:
        job = _submit(asked, request)
        stderr().print(f"job {job['id']} submitted: {asked.url}/jobs/{job['id']}/", style="dim")
        try:
            ended = _follow(asked, job["id"], 0, silent=as_json)
        except KeyboardInterrupt:
            asked.cancel_job(job["id"], "interrupted at the terminal")
            stderr().print(f"job {job['id']}: cancelling")
            sys.exit(130)
    if as_json:
        print_json(ended)
    elif ended["state"] != "succeeded":
        stderr().print(f"job {ended['id']} {ended['state']}. {clean(ended.get('detail') or '')}".rstrip())
    if ended["state"] == "succeeded":
        sys.exit(0)
    sys.exit(ended.get("exit_code") or FAILED)


def logs(job_id: int, follow: bool, rank: int, attempt: int | None) -> None:
    """Print what there is, or everything until the end; to standard error which task of a run it is of."""
    with client() as asked:
        _say_task(asked, job_id)
        if follow and attempt is None:
            ended = _follow(asked, job_id, rank)
            sys.exit(0 if ended["state"] == "succeeded" else FAILED)
        _copy(asked, job_id, rank, attempt, 0, wait=follow)


def _say_task(asked: Client, job_id: int) -> None:
    kind, _, run = str(asked.job(job_id).get("origin") or "").partition(":")
    # A task that has been cleared since has another job now.
    for task in asked.run_tasks(int(run), job=job_id) if kind == "run" else ():
        stderr().print(f"{clean(named(task))} of run {run}", style="dim")


def _looks() -> Iterator[None]:
    """Pauses that grow while nothing happens."""
    pause = FIRST_LOOK_SECONDS
    while True:
        yield
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_LOOK_SECONDS)


def _copy(asked: Client, job_id: int, rank: int, attempt: int | None, offset: int, *, wait: bool) -> int:
    """Copy the log of one attempt from an offset to standard output; returns the new offset.

    With `wait`, until it is complete or the job has ended.
    """
    looks = _looks()
    while True:
        next(looks)
        data, complete = asked.log(job_id, offset=offset, rank=rank, attempt=attempt)
        offset += len(data)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if data:
            looks = _looks()
        elif not wait or asked.job(job_id)["state"] in ENDED:
            return offset
        if complete:
            return offset


def _follow(asked: Client, job_id: int, rank: int, *, silent: bool = False) -> dict[str, Any]:
    """Copy the logs of all attempts as they come; the job's row at its end."""
    shown: dict[int, int] = {}
    finished: set[int] = set()
    told = ""
    looks = _looks()
    while True:
        next(looks)
        job = asked.job(job_id)
        ended = job["state"] in ENDED
        if not silent:
            said = str(job.get("detail") or job.get("reason") or "")
            if job["state"] == "pending" and said != told:
                told = said
                stderr().print(f"pending: {clean(said)}", style="dim")
            for attempt in asked.attempts(job_id):
                number = int(attempt["token"])
                if number in finished:
                    continue
                if shown and number not in shown:
                    stderr().print(f"attempt {number}", style="dim")
                before = shown.get(number, 0)
                shown[number], complete = _drain(asked, job_id, rank, number, before)
                if shown[number] > before:
                    looks = _looks()
                if complete:
                    finished.add(number)
        if ended:
            # The log may end a moment after the job: what is missing is fetched, for a few seconds at most.
            for number in sorted(set(shown) - finished):
                _settle(asked, job_id, rank, number, shown[number])
            return job


def _drain(asked: Client, job_id: int, rank: int, attempt: int, offset: int) -> tuple[int, bool]:
    """Copy what is there now; (new offset, complete)."""
    while True:
        try:
            data, complete = asked.log(job_id, offset=offset, rank=rank, attempt=attempt)
        except ApiError as error:
            if error.status == 404:
                return offset, False
            raise
        offset += len(data)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if complete or not data:
            return offset, complete


def _settle(asked: Client, job_id: int, rank: int, attempt: int, offset: int) -> None:
    deadline = time.monotonic() + 5
    looks = _looks()
    complete = False
    while not complete and time.monotonic() < deadline:
        next(looks)
        offset, complete = _drain(asked, job_id, rank, attempt, offset)
    if not complete:
        stderr().print(
            f"the log of attempt {attempt} is not complete yet; see rmctl logs {job_id}", style="yellow"
        )


def why(job_id: int, as_json: bool) -> None:
    """Reason, queue position and the funnel of what was tried."""
    with client() as asked:
        told = asked.why(job_id)
    if as_json:
        print_json(told)
        return
    title = told.get("title") or told.get("reason") or "no reason"
    reason = f" ({told['reason']})" if told.get("reason") and told.get("title") else ""
    stdout().print(f"job {job_id}: {clean(title)}{clean(reason)}", style="bold")
    if told.get("detail"):
        stdout().print(clean(told["detail"]))
    _outlook(told)
    tried = told.get("tried") or []
    rows = [(item.get("flavor"), state(item.get("outcome", "")), item.get("detail")) for item in tried]
    if rows:
        stdout().print()
        print_table(("flavor", "outcome", "detail"), rows)
    for number, item in enumerate(told.get("suggestions") or []):
        stdout().print(f"{'or' if number else 'it would start now'}: {clean(item['text']).removesuffix(': now')}")
    for item in tried:
        steps = item.get("funnel") or []
        if steps:
            stdout().print()
            stdout().print(f"nodes of {clean(item.get('flavor', ''))}, filter by filter:")
            print_table(
                ("filter", "rejected", "remaining", "only this one"),
                [
                    (step.get("filter"), step.get("rejected"), step.get("remaining"), step.get("only"))
                    for step in steps
                ],
                right=("rejected", "remaining", "only this one"),
            )


def _outlook(told: dict[str, Any]) -> None:
    """Its place and what it is made of, and when it is expected to start."""
    order, start, run_time = (told.get(name) or {} for name in ("order", "start", "run_time"))
    if told.get("position"):
        terms = ""
        if order:
            terms = f": priority {order['priority']:g}, ageing {order['ageing']:+g}, "
            terms += f"fair share {order['fair_share']:+g} = {order['total']:g}"
        stdout().print(f"position {told['position']} in its queue{terms}")
        if order.get("priority_reach") == "across_tenants":
            text = "  priority goes first between tenants too: {above} of their waiting jobs have a higher one, "
            stdout().print((text + "{below} a lower one").format_map(order), style="dim")
    if start.get("p50"):
        stdout().print(f"estimated start {ago(start['p50'])}, 9 times of 10 {ago(start['p90'])}")
        stdout().print(f"  {clean(start.get('basis') or '')}", style="dim")
    elif start.get("unknown"):
        stdout().print(f"estimated start not known: {clean(start['unknown'])}")
    if start.get("reserved_at"):
        stdout().print(f"a start is reserved for it {ago(start['reserved_at'])}")
    if run_time:
        usual, long = span(run_time["p50_seconds"]), span(run_time["p90_seconds"])
        stdout().print(f"expected to run {usual}, 9 times of 10 at most {long}: {clean(run_time['basis'])}")


def cancel(number: int, is_run: bool, reason: str, as_json: bool) -> None:
    """Stop a job or a run."""
    with client() as asked:
        row = asked.cancel_run(number, reason) if is_run else asked.cancel_job(number, reason)
    if as_json:
        print_json(row)
    else:
        noun = "run" if is_run else "job"
        stdout().print(f"{noun} {number}: {clean(row.get('state') or 'cancelling')}")
