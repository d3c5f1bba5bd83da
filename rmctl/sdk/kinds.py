"""Groups of tasks, and tasks that wait: for a time, another run, datasets, or a person. They have no job."""

from .dag import Node, Task, current
from .datasets import expression
from .options import SdkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any, Self

# Moments of a run from which on updates of datasets count.
MOMENTS = ("data_interval_end", "data_interval_start", "triggered")


class TaskGroup(Node):
    """Tasks that belong together: made in its `with` block they get its id as prefix, `>>` links all of it, and pages
    can fold it."""

    __slots__ = ("_before", "dag", "description", "id", "parent", "prefix", "upstream")

    def __init__(self, group_id: str, *, tooltip: str = "", prefix_group_id: bool = True) -> None:
        self.dag = current(f"TaskGroup {group_id}")
        self.parent: TaskGroup | None = self.dag.group
        self.id = self.parent.prefixed(group_id) if self.parent is not None else group_id
        self.description = tooltip
        self.prefix = prefix_group_id
        self.upstream: dict[str, Any] = {}
        if self.id in self.dag.tasks or any(group.id == self.id for group in self.dag.groups):
            raise SdkError(f"DAG {self.dag.name}: there is a task or a group {self.id} already; choose another id.")
        self.dag.groups.append(self)

    def __enter__(self) -> "Self":
        self._before = self.dag.group
        self.dag.group = self
        return self

    def __exit__(self, *exception: object) -> None:
        self.dag.group = self._before

    def _task(self) -> "TaskGroup":
        return self

    def __repr__(self) -> str:
        return f"<group {self.id}>"

    def prefixed(self, identifier: str) -> str:
        """The id of a task or group in it."""
        if self.prefix:
            return f"{self.id}.{identifier}"
        return self.parent.prefixed(identifier) if self.parent is not None else identifier

    def definition(self) -> "dict[str, Any]":
        """The group as JSON data of a definition."""
        group: dict[str, Any] = {"id": self.id, "upstream": list(self.upstream)}
        if self.parent is not None:
            group["parent"] = self.parent.id
        if self.description:
            group["description"] = self.description
        return group


def task_group(function: "Any" = None, **options: "Any") -> "Any":
    """Mark a function whose call makes a group of the tasks in it; gives back what it returns, or the group."""
    if function is None:
        return lambda marked: task_group(marked, **options)
    chosen = options.pop("group_id", function.__name__)

    def made(*args: "Any", **kwargs: "Any") -> "Any":
        with TaskGroup(chosen, **options) as group:
            returned = function(*args, **kwargs)
        return group if returned is None else returned

    made.__name__, made.__doc__ = function.__name__, function.__doc__
    return made


def python(
    identifier: str,
    file: str,
    function: str,
    *,
    arguments: "Mapping[str, Any] | None" = None,
    expand: "Mapping[str, Any] | None" = None,
    decides: "str | None" = None,
    returns: "str | None" = None,
    poke: "Mapping[str, Any] | None" = None,
    ignore_downstream_trigger_rules: bool = True,
    **options: "Any",
) -> Task:
    """A task that calls a function of another file, by name: the file ships, and is not loaded here."""
    extra: dict[str, Any] = {"file": file, "function": function}
    given = {"decides": decides, "returns": returns, "poke": None if poke is None else dict(poke)}
    extra |= {name: value for name, value in given.items() if value is not None}
    if not ignore_downstream_trigger_rules:
        extra["ignore_downstream_trigger_rules"] = False
    return Task(identifier, "python", options=options, arguments=arguments, over=expand, extra=extra)


def wait_until(identifier: str, time: "Any", **options: "Any") -> Task:
    """Wait for a point in time: a date and time, a time of day in the zone of the workflow, a parameter or a result."""
    value = time.isoformat() if hasattr(time, "isoformat") else time
    return Task(identifier, "wait_until", options=options, arguments={"time": value})


def wait_for(identifier: str, duration: "Any", **options: "Any") -> Task:
    """Wait this long from the moment that the run gets there: seconds, or text such as "10m"."""
    return Task(identifier, "wait_for", options=options, arguments={"duration": duration})


def wait_for_run(
    identifier: str,
    workflow: str,
    *,
    logical_time: "datetime | str | Any" = None,
    before: "Any" = None,
    allowed: "Sequence[str]" = ("succeeded",),
    failed: "Sequence[str]" = ("failed", "cancelled"),
    timeout: "Any" = "7d",
    soft_fail: bool = False,
    **options: "Any",
) -> Task:
    """Wait for the run of another workflow of the tenant with this logical time (the own one, `before` earlier)."""
    given = {"logical_time": logical_time, "before": before}
    arguments = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in given.items()
        if value is not None
    }
    spec = _run_wait(workflow, allowed, failed, timeout, soft_fail)
    return Task(identifier, "wait_for_run", options=options, arguments=arguments, extra={"wait_for_run": spec})


def wait_for_dataset(
    identifier: str,
    datasets: "Any",
    *,
    since: "datetime | str | Any" = None,
    before: "Any" = None,
    timeout: "Any" = "7d",
    soft_fail: bool = False,
    **options: "Any",
) -> Task:
    """Wait until datasets were updated: one, a list (all of it), or datasets joined by `&` and `|`.

    Updates count from `since` on, minus the duration `before`: a time, a parameter, a result, or a moment of the run,
    which is `data_interval_end` (the default), `data_interval_start` or `triggered`.
    """
    spec: dict[str, Any] = {"datasets": expression(datasets), "timeout": timeout, "soft_fail": soft_fail}
    arguments = {} if before is None else {"before": before}
    if isinstance(since, str) and since in MOMENTS:
        spec["since"] = since
    elif since is not None:
        arguments["since"] = since.isoformat() if hasattr(since, "isoformat") else since
    extra = {"wait_for_dataset": spec}
    return Task(identifier, "wait_for_dataset", options=options, arguments=arguments, extra=extra)


def trigger_run(
    identifier: str,
    workflow: str,
    *,
    params: "Mapping[str, Any] | None" = None,
    expand: "Any" = None,
    logical_time: str = "now",
    no_cache: bool = False,
    wait: bool = False,
    allowed: "Sequence[str]" = ("succeeded",),
    failed: "Sequence[str]" = ("failed", "cancelled"),
    timeout: "Any" = "7d",
    soft_fail: bool = False,
    **options: "Any",
) -> Task:
    """Start a run of another workflow of the tenant; with `wait` the task ends as that run does. Its result is
    `{"run": id, "state": …}`; `logical_time` is `now` or `own`, that of this run; with `no_cache`
    its tasks take no earlier results. With `expand` (as of `bash`) there is
    a run for each instance, with the parameters that it gives."""
    spec = {**_run_wait(workflow, allowed, failed, timeout, soft_fail), "wait": wait}
    spec |= {"logical_time": logical_time, "no_cache": no_cache}
    extra = {"trigger_run": spec}
    return Task(identifier, "trigger_run", options=options, arguments=params, over=expand, extra=extra)


def _run_wait(
    workflow: str, allowed: "Sequence[str]", failed: "Sequence[str]", timeout: "Any", soft_fail: bool
) -> "dict[str, Any]":
    return {
        "workflow": workflow,
        "allowed": list(allowed),
        "failed": [state for state in failed if state not in allowed],
        "timeout": timeout,
        "soft_fail": soft_fail,
    }


def deploy_service(
    identifier: str,
    spec: "Mapping[str, Any]",
    *,
    replicas: "int | None" = None,
    arguments: "Mapping[str, Any] | None" = None,
    wait: bool = True,
    timeout: "Any" = "1h",
    soft_fail: bool = False,
    **options: "Any",
) -> Task:
    """Deploy a service of the tenant, and with `wait` wait until its rollout has ended well; nothing is held meanwhile.

    `spec` is what `rmctl deploy` takes; `arguments` are further variables of its replicas, also results and parameters.
    The result is `{"service": name, "revision": number, "state": …}`.
    """
    chosen = {"spec": dict(spec), "replicas": replicas, "wait": wait, "timeout": timeout, "soft_fail": soft_fail}
    return Task(identifier, "service", options=options, arguments=arguments, extra={"service": chosen})


def approval(
    identifier: str,
    subject: str,
    *,
    text: str = "",
    options: "Sequence[str]" = ("approve", "reject"),
    reject: "Sequence[str] | None" = None,
    form: "Mapping[str, Any] | None" = None,
    users: "Sequence[str]" = (),
    roles: "Sequence[str]" = (),
    timeout: "Any" = "7d",
    default: "str | None" = None,
    soft_fail: bool = False,
    show: "Mapping[str, Any] | None" = None,
    expand: "Any" = None,
    **settings: "Any",
) -> Task:
    """Ask people; `show` are values (results, parameters) that they see, `form` is a JSON Schema of what they fill in.

    The result is `{"option": …, "values": {…}, "by": user or None}`. An option of `reject` skips all behind the task.
    With `expand` (as of `bash`) there is a question for each instance, which shows what that gives.
    """
    spec: dict[str, Any] = {
        "subject": subject,
        "text": text,
        "options": list(options),
        "reject": [option for option in ("reject",) if option in options] if reject is None else list(reject),
        "form": dict(form or {}),
        "users": list(users),
        "roles": list(roles),
        "timeout": timeout,
        "default": default,
        "soft_fail": soft_fail,
    }
    return Task(identifier, "approval", options=settings, arguments=show, over=expand, extra={"approval": spec})
