"""Writing a workflow in Python.

    with DAG("etl", schedule="@daily", params={"limit": 10}) as dag:
        rows = extract(limit=param("limit"))
        parts = transform.expand(part=rows["parts"])
        parts >> bash("notify", "echo done")

Calling a `@task` function inside a `with DAG` block makes a task and returns its handle; anywhere else it is
the plain function. This module runs in every Python task (the runner loads the author's file), so it imports
nothing heavy: no pydantic, dataclasses, inspect or typing. Checks of a whole definition are `rmctl.spec`'s.
"""

from itertools import pairwise

from rmctl.sdk.alerts import read_dag_alerts
from rmctl.sdk.mapping import over_of
from rmctl.sdk.options import SdkError, params_schema, read_date, read_options, read_schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date, timedelta
    from typing import Any, Self

    from rmctl.sdk.datasets import Condition

    Linkable = "Node | Sequence[Node]"


_open: "list[DAG]" = []
created: "list[DAG]" = []
# Says where in the author's file a task or an edge is made; only while the file is compiled (places.py), not in tasks.
locate: "Callable[[], Any] | None" = None


def current(what: str) -> "DAG":
    if not _open:
        raise SdkError(f"{what}: tasks are made inside a block `with DAG(...)`.")
    return _open[-1]


def in_dag() -> bool:
    """Whether a block `with DAG(...)` is open."""
    return bool(_open)


class DAG:
    """A workflow: a context in which tasks are made. `files` are globs beside the file that ship with it; with a
    `bundle`, the SHA-256 of one that the portal has, nothing ships."""

    def __init__(
        self,
        name: str = "",
        *,
        description: str = "",
        schedule: "str | timedelta | Condition | Sequence[str | timedelta | Condition] | None" = None,
        datasets: "Condition | None" = None,
        timezone: str = "UTC",
        catchup: bool = False,
        start_date: "str | date | None" = None,
        end_date: "str | date | None" = None,
        max_active_runs: int = 16,
        max_active_tasks: int = 0,
        max_active_tasks_all_runs: "int | None" = None,
        weight_rule: "str | None" = None,
        params: "Mapping[str, Any] | None" = None,
        defaults: "Mapping[str, Any] | None" = None,
        files: "Sequence[str]" = (),
        bundle: "str | None" = None,
        deadline: "str | float | Mapping[str, Any] | None" = None,
        time_limit: "str | float | None" = None,
        **alerts: "Any",
    ) -> None:
        if isinstance(files, str):
            raise SdkError(f"DAG {name}: files is a list of globs, for example files=[{files!r}].")
        times, waits = read_schedule(schedule)
        if datasets is not None and waits is not None:
            raise SdkError(f"DAG {name}: give the datasets either in schedule or in datasets.")
        waits = waits if datasets is None else datasets.expression()
        self.name = name
        self.files = list(files)
        self.tasks: dict[str, Task] = {}
        self.groups: list[Any] = []
        self.place = locate() if locate is not None else None
        # The group that is open, and the tasks whose `with` block is.
        self.group: Any = None
        self.scopes: list[list[Task]] = []
        self.fields: dict[str, Any] = {
            "name": name,
            "description": description,
            "schedule": times,
            "datasets": waits,
            "timezone": timezone,
            "catchup": catchup,
            "start_date": read_date(start_date),
            "end_date": read_date(end_date),
            "max_active_runs": max_active_runs,
            "max_active_tasks": max_active_tasks,
            "max_active_tasks_all_runs": max_active_tasks_all_runs,
            "weight_rule": weight_rule,
            "params": params_schema(params or {}),
            "defaults": read_options(f"DAG {name}: defaults", defaults or {}),
            **({"bundle": bundle} if bundle is not None else {}),
            **read_dag_alerts(f"DAG {name}", alerts, deadline=deadline, time_limit=time_limit),
        }
        created.append(self)

    def __enter__(self) -> "Self":
        _open.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _open.remove(self)

    def add(self, task: "Task", *, rename: bool) -> None:
        """Take a task in; a taken id that the author did not choose gets `__1`, `__2` … Raises SdkError."""
        if task.id in self.tasks:
            if not rename:
                raise SdkError(f"DAG {self.name}: there are two tasks {task.id}; give each its own id.")
            number = 1
            while f"{task.id}__{number}" in self.tasks:
                number += 1
            task.id = f"{task.id}__{number}"
        self.tasks[task.id] = task
        for scope in self.scopes:
            scope.append(task)

    def definition(self, *, file_of: "Callable[[Any], str] | None" = None) -> "dict[str, Any]":
        """The definition as JSON data, not validated yet. `file_of` names a function's file in the bundle."""
        tasks = [task.definition(file_of) for task in self.tasks.values()]
        groups = {"groups": [group.definition() for group in self.groups]} if self.groups else {}
        return {"schema": 1, **self.fields, **groups, "tasks": tasks}


class Node:
    """What can stand on either side of `>>` and `<<`."""

    __slots__ = ()

    def _task(self) -> "Any":
        """What has the edges: a task or a group."""
        raise NotImplementedError

    def __rshift__(self, other: "Any") -> "Any":
        _link([self], _nodes(other))
        return other

    def __lshift__(self, other: "Any") -> "Any":
        _link(_nodes(other), [self])
        return other

    def __rrshift__(self, other: "Any") -> "Self":
        _link(_nodes(other), [self])
        return self

    def __rlshift__(self, other: "Any") -> "Self":
        _link([self], _nodes(other))
        return self

    def __iter__(self) -> "Any":
        raise TypeError(
            f"{self!r} is known only when the run gets there; use .expand(...) to make a task for each item"
        )

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is known only when the run gets there; a DAG cannot branch on it")


class Task(Node):
    """A task of a DAG, and a handle to its result: an argument as it is, or a part of it as `task["key"]`."""

    __slots__ = (
        "arguments", "dag", "extra", "fields", "function", "group", "id", "kind", "over", "place", "script", "upstream"
    )  # fmt: skip

    def __init__(
        self,
        identifier: str,
        kind: str,
        *,
        options: "Mapping[str, Any]",
        script: "str | None" = None,
        function: "Any" = None,
        arguments: "Mapping[str, Any] | None" = None,
        over: "Any" = None,
        extra: "Mapping[str, Any] | None" = None,
        rename: bool = False,
    ) -> None:
        self.dag = current(f"Task {identifier}")
        self.group = self.dag.group
        self.id = self.group.prefixed(identifier) if self.group is not None else identifier
        self.kind = kind
        # Fields of a definition that belong to the kind of task, not to its job.
        self.extra = dict(extra or {})
        self.fields = read_options(f"Task {identifier}", options)
        self.script = script
        self.function = function
        self.arguments = dict(arguments or {})
        self.over = over_of(f"Task {identifier}", over)
        # With the place of each edge.
        self.upstream: dict[str, Any] = {}
        self.place = locate() if locate is not None else None
        for name, value in (*self.arguments.items(), *self.lists().items()):
            if isinstance(value, Node) and value._task().dag is not self.dag:
                raise SdkError(f"Task {identifier}: argument {name} comes from another DAG.")
        self.dag.add(self, rename=rename)

    def _task(self) -> "Task":
        return self

    def as_setup(self) -> "Self":
        """Make it a setup: what is behind it runs only when it succeeded, up to its teardown."""
        self.extra["setup"] = True
        return self

    def as_teardown(self, *, setups: "Any" = (), on_failure_fail_dagrun: bool = False) -> "Self":
        """Make it the teardown of these tasks, which become setups: it runs when one of them succeeded, whatever
        happened between, and its failure does not fail the run unless asked for."""
        made = [node._task() for node in _nodes(setups)]
        for setup in made:
            setup.as_setup()
        _link(made, [self])
        self.extra["teardown"] = {
            "setups": [setup.id for setup in made],
            **({"fails_run": True} if on_failure_fail_dagrun else {}),
        }
        return self

    def __enter__(self) -> "Self":
        self.dag.scopes.append([])
        return self

    def __exit__(self, *exception: object) -> None:
        """Put the tasks made inside between this teardown and its setups."""
        inside = {made.id: made for made in self.dag.scopes.pop()}
        if "teardown" not in self.extra:
            raise SdkError(f"Task {self.id}: only a teardown opens a block; use .as_teardown(setups=…).")
        setups = [self.dag.tasks[name] for name in self.extra["teardown"]["setups"]]
        waited = {name for made in inside.values() for name in (*made.upstream, *made.sources())}
        for made in inside.values():
            if not {*made.upstream, *made.sources()} & inside.keys():
                _link(setups, [made])
            if made.id not in waited:
                _link([made], [self])

    def lists(self) -> "dict[str, Any]":
        """The lists that it is mapped over, by argument."""
        return self.over.lists if self.over is not None else {}

    def sources(self) -> "list[str]":
        """Tasks whose results it takes."""
        values = (*self.arguments.values(), *self.lists().values())
        return [value._task().id for value in values if isinstance(value, Node)]

    def __getitem__(self, key: "str | int") -> "Result":
        return Result(self, key)

    def __repr__(self) -> str:
        return f"<result of task {self.id}>"

    def definition(self, file_of: "Callable[[Any], str] | None" = None) -> "dict[str, Any]":
        """The task as JSON data of a definition."""
        fields = dict(self.fields)
        mapping = {"limit": fields.pop("map_limit", None), "label": fields.pop("map_index_template", None)}
        task: dict[str, Any] = {"id": self.id, "kind": self.kind, "upstream": list(self.upstream)}
        task |= {**fields, **self.extra}
        if self.group is not None:
            task["group"] = self.group.id
        if self.kind == "bash":
            task["script"] = self.script
        elif self.function is not None:
            task["file"] = file_of(self.function) if file_of else self.function.__code__.co_filename
            task["function"] = self.function.__name__
        if self.arguments:
            task["arguments"] = {name: self._argument(name, value) for name, value in self.arguments.items()}
        if self.over is not None:
            lists = {name: self._argument(name, value) for name, value in self.over.lists.items()}
            task["map"] = self.over.definition(lists)
            task["map"] |= {name: value for name, value in mapping.items() if value is not None}
        return task

    def _argument(self, name: str, value: "Any") -> "dict[str, Any]":
        if isinstance(value, Param):
            return {"param": value.name}
        if isinstance(value, Result):
            return {"result": value.task.id, "key": value.key}
        if isinstance(value, Task):
            return {"result": value.id}
        return {"value": self._plain(name, value)}

    def _plain(self, name: str, value: "Any") -> "Any":
        """JSON data of a value; tuples become lists. Raises SdkError for handles inside."""
        if isinstance(value, Node) and not isinstance(value, Task | Result):
            raise SdkError(f"Task {self.id}: argument {name} is {value!r}, which has no result of its own.")
        if isinstance(value, Node | Param):
            raise SdkError(
                f"Task {self.id}: argument {name} has {value!r} inside a list or object; "
                "pass it as its own argument."
            )
        if isinstance(value, list | tuple):
            return [self._plain(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._plain(name, item) for key, item in value.items()}
        if value is not None and not isinstance(value, str | int | float | bool):
            raise SdkError(
                f"Task {self.id}: argument {name} is a {type(value).__name__}; "
                "give text, numbers, lists and objects, which can be stored as JSON."
            )
        return value


class Result(Node):
    """A part of a task's result, picked by key when the run gets there."""

    __slots__ = ("key", "task")

    def __init__(self, task: Task, key: "str | int") -> None:
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise SdkError(f"Task {task.id}: a result is picked by a name or a position, not by {key!r}.")
        self.task = task
        self.key = key

    def _task(self) -> Task:
        return self.task

    def __getitem__(self, key: object) -> "Result":
        raise SdkError(
            f"{self!r}: only one key can be picked; pass this part on and pick inside the next task."
        )

    def __repr__(self) -> str:
        return f"<result of task {self.task.id}[{self.key!r}]>"


class Param:
    """A parameter of the run, usable as an argument."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<parameter {self.name}>"


def param(name: str) -> Param:
    """A parameter that the DAG declares in `params`, as an argument of a task."""
    return Param(name)


def bash(
    identifier: str,
    script: str,
    *,
    arguments: "Mapping[str, Any] | None" = None,
    expand: "Any" = None,
    decides: "str | None" = None,
    **options: "Any",
) -> Task:
    """A task that runs a script with bash; with `decides` (branch or short_circuit) what it writes to `RM_RESULT` says
    how the run goes on.

    Arguments arrive as variables `RM_ARG_<NAME>` (text as it is, everything else as JSON; up to 32 KiB each)
    and in the JSON file `RM_INPUTS`. `expand={"name": list}` makes an instance for each item, of several lists for each
    combination of theirs, with `zipped(name=list, …)` for each place; `expand=rows` for each object of arguments.
    """
    extra = {"decides": decides} if decides else {}
    return Task(identifier, "bash", options=options, script=script, arguments=arguments, over=expand, extra=extra)


def empty(identifier: str, **options: "Any") -> Task:
    """A task without a job: a joint in the graph, done as soon as it is ready."""
    return Task(identifier, "empty", options=options)


def chain(*steps: "Any") -> None:
    """`chain(a, [b, c], d)` is `a >> [b, c] >> d`; two lists in a row are linked pair by pair."""
    for left, right in pairwise(steps):
        before, after = _nodes(left), _nodes(right)
        if isinstance(left, Node) or isinstance(right, Node):
            _link(before, after)
        elif len(before) == len(after):
            for one, other in zip(before, after, strict=True):
                _link([one], [other])
        else:
            raise SdkError(f"chain: lists of {len(before)} and {len(after)} tasks cannot be paired.")


def _nodes(value: "Any") -> "list[Node]":
    if isinstance(value, Node):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(item, Node) for item in value):
        return list(value)
    raise SdkError(f"Only tasks and lists of tasks can be linked, not {value!r}.")


def _link(before: "Iterable[Node]", after: "Iterable[Node]") -> None:
    firsts = list(before)
    for last in after:
        for first in firsts:
            up, down = first._task(), last._task()
            if up.dag is not down.dag:
                raise SdkError(f"Tasks {up.id} and {down.id} belong to different DAGs.")
            down.upstream[up.id] = locate() if locate is not None else None
