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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date, timedelta
    from typing import Any, Self

    from rmctl.sdk.datasets import Condition

    Linkable = "Node | Sequence[Node]"

_OPTIONS = (
    "resources", "env", "secrets", "labels", "retries", "time_limit", "intent", "priority", "on_preempt", "notice",
    "image", "count", "min_count", "trigger_rule", "map_limit", "depends_on_past", "wait_for_downstream",
    "template", "variables", "connections", "outlets",
)  # fmt: skip
_VARARGS, _VARKEYWORDS = 0x04, 0x08  # flags of a code object: *args, **kwargs

_open: "list[DAG]" = []
created: "list[DAG]" = []


class SdkError(ValueError):
    """A DAG is written in a way that cannot work; the message names the task and what to do."""


def _current(what: str) -> "DAG":
    if not _open:
        raise SdkError(f"{what}: tasks are made inside a block `with DAG(...)`.")
    return _open[-1]


class DAG:
    """A workflow: a context in which tasks are made. `files` are globs beside the file that ship with it."""

    def __init__(
        self,
        name: str,
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
        params: "Mapping[str, Any] | None" = None,
        defaults: "Mapping[str, Any] | None" = None,
        files: "Sequence[str]" = (),
    ) -> None:
        if isinstance(files, str):
            raise SdkError(f"DAG {name}: files is a list of globs, for example files=[{files!r}].")
        times, waits = _schedule(schedule)
        if datasets is not None and waits is not None:
            raise SdkError(f"DAG {name}: give the datasets either in schedule or in datasets.")
        waits = waits if datasets is None else datasets.expression()
        self.name = name
        self.files = list(files)
        self.tasks: dict[str, Task] = {}
        self.groups: list[Any] = []
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
            "start_date": _date(start_date),
            "end_date": _date(end_date),
            "max_active_runs": max_active_runs,
            "max_active_tasks": max_active_tasks,
            "params": _params_schema(params or {}),
            "defaults": _options(f"DAG {name}: defaults", defaults or {}),
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
        "arguments", "dag", "extra", "fields", "function", "group", "id", "kind", "over", "script", "upstream"
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
        over: "Mapping[str, Any] | None" = None,
        extra: "Mapping[str, Any] | None" = None,
        rename: bool = False,
    ) -> None:
        self.dag = _current(f"Task {identifier}")
        self.group = self.dag.group
        self.id = self.group.prefixed(identifier) if self.group is not None else identifier
        self.kind = kind
        # Fields of a definition that belong to the kind of task, not to its job.
        self.extra = dict(extra or {})
        self.fields = _options(f"Task {identifier}", options)
        self.script = script
        self.function = function
        self.arguments = dict(arguments or {})
        self.over = dict(over or {})
        self.upstream: dict[str, None] = {}
        for name, value in (*self.arguments.items(), *self.over.items()):
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

    def sources(self) -> "list[str]":
        """Tasks whose results it takes."""
        values = (*self.arguments.values(), *self.over.values())
        return [value._task().id for value in values if isinstance(value, Node)]

    def __getitem__(self, key: "str | int") -> "Result":
        return Result(self, key)

    def __repr__(self) -> str:
        return f"<result of task {self.id}>"

    def definition(self, file_of: "Callable[[Any], str] | None" = None) -> "dict[str, Any]":
        """The task as JSON data of a definition."""
        fields = dict(self.fields)
        limit = fields.pop("map_limit", None)
        task: dict[str, Any] = {"id": self.id, "kind": self.kind, "upstream": list(self.upstream)}
        task |= {**fields, **self.extra}
        if self.group is not None:
            task["group"] = self.group.id
        if self.kind == "bash":
            task["script"] = self.script
        elif self.kind == "python":
            task["file"] = file_of(self.function) if file_of else self.function.__code__.co_filename
            task["function"] = self.function.__name__
        if self.arguments:
            task["arguments"] = {name: self._argument(name, value) for name, value in self.arguments.items()}
        if self.over:
            task["map"] = {"over": {name: self._argument(name, value) for name, value in self.over.items()}}
            if limit is not None:
                task["map"]["limit"] = limit
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


class TaskFunction:
    """A function marked with `@task`; a plain call outside a DAG, a new task inside one."""

    def __init__(
        self,
        function: "Any",
        options: "Mapping[str, Any]",
        fixed: "Mapping[str, Any] | None" = None,
        extra: "Mapping[str, Any] | None" = None,
    ) -> None:
        if not hasattr(function, "__code__"):
            raise SdkError(f"@task marks functions, not {function!r}.")
        self.function = function
        self._settings = dict(options)
        self._fixed = dict(fixed or {})
        self.extra = dict(extra or {})
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(self, name, getattr(function, name))
        self.__wrapped__ = function

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        if not _open:
            return self.function(*args, **{**self._fixed, **kwargs})
        return self._make(self._bind(args, {**self._fixed, **kwargs}), {})

    def partial(self, **kwargs: "Any") -> "TaskFunction":
        """The same function with some arguments given; followed by `.expand(...)`."""
        return TaskFunction(self.function, self._settings, {**self._fixed, **kwargs}, self.extra)

    def override(self, **options: "Any") -> "TaskFunction":
        """The same function with other options, for example `id` or `resources`."""
        return TaskFunction(self.function, {**self._settings, **options}, self._fixed, self.extra)

    def expand(self, **over: "Any") -> Task:
        """One instance for each item of a list: a literal one, a parameter, or another task's result."""
        name = self.function.__name__
        if len(over) != 1:
            raise SdkError(f"{name}.expand takes exactly one argument to map over, not {len(over)}.")
        return self._make(self._bind((), {**self._fixed, **over}), over)

    def _make(self, arguments: "dict[str, Any]", over: "Mapping[str, Any]") -> Task:
        options = dict(self._settings)
        chosen = options.pop("id", None)
        return Task(
            chosen or self.function.__name__,
            "python",
            options=options,
            function=self.function,
            arguments={name: value for name, value in arguments.items() if name not in over},
            over=over,
            extra=self.extra,
            rename=chosen is None,
        )

    def _bind(self, args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> "dict[str, Any]":
        """Arguments by name. Raises SdkError for what the function does not take or still misses."""
        function, code = self.function, self.function.__code__
        count = code.co_argcount
        names = code.co_varnames[:count]
        by_name = names[code.co_posonlyargcount :] + code.co_varnames[count : count + code.co_kwonlyargcount]
        where = f"Task {function.__name__}"
        if code.co_posonlyargcount or code.co_flags & _VARARGS:
            raise SdkError(
                f"{where}: its arguments are given by name; remove * and positional-only arguments."
            )
        if len(args) > count:
            raise SdkError(f"{where}: takes {count} positional arguments, {len(args)} are given.")
        bound = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name in bound:
                raise SdkError(f"{where}: argument {name} is given twice.")
            if name not in by_name and not code.co_flags & _VARKEYWORDS:
                raise SdkError(f"{where}: has no argument {name}; it takes {', '.join(by_name) or 'none'}.")
            bound[name] = value
        optional = {*names[count - len(function.__defaults__ or ()) :], *(function.__kwdefaults__ or ())}
        missing = [name for name in by_name if name not in bound and name not in optional]
        if missing:
            raise SdkError(f"{where}: {', '.join(missing)} must be given.")
        return bound


class _Marker:
    """`@task`, and `@task.branch` and its like."""

    def __call__(self, function: "Any" = None, **options: "Any") -> "Any":
        """Mark a function as a task: `@task`, or `@task(id=…, resources={"cpu": 2}, retries=3)`."""
        return _marked(function, options, {})

    def branch(self, function: "Any" = None, **options: "Any") -> "Any":
        """A task that returns the id, or ids, of the tasks or groups directly behind it that the run goes on with; the
        others are skipped."""
        return _marked(function, options, {"decides": "branch"})

    def short_circuit(
        self, function: "Any" = None, *, ignore_downstream_trigger_rules: bool = True, **options: "Any"
    ) -> "Any":
        """A task that returns whether to go on; if not, all behind it is skipped, or with
        `ignore_downstream_trigger_rules=False` only what is directly behind it."""
        extra: dict[str, Any] = {"decides": "short_circuit"}
        if not ignore_downstream_trigger_rules:
            extra["ignore_downstream_trigger_rules"] = False
        return _marked(function, options, extra)

    def bash(self, function: "Any" = None, **options: "Any") -> "Any":
        """A task that returns the script which bash then runs."""
        return _marked(function, options, {"returns": "script"})

    def sensor(
        self,
        function: "Any" = None,
        *,
        poke_interval: "Any" = "1m",
        exponential_backoff: "bool | float" = False,
        max_wait: "Any" = "1h",
        timeout: "Any" = "7d",
        soft_fail: bool = False,
        **options: "Any",
    ) -> "Any":
        """A function that returns whether to go on, or a `Poked`; it is called every `poke_interval`, with back-off
        ever later (by the factor given, 2 for True) but at least every `max_wait`, and runs nowhere in between. After
        `timeout` it has failed, or with `soft_fail` is skipped."""
        factor = 2.0 if exponential_backoff is True else float(exponential_backoff or 1.0)
        poke = {
            "interval": poke_interval,
            "factor": factor,
            "max_interval": max_wait,
            "timeout": timeout,
            "soft_fail": soft_fail,
        }
        return _marked(function, options, {"poke": poke})


def _marked(function: "Any", options: "dict[str, Any]", extra: "dict[str, Any]") -> "Any":
    if function is None:
        return lambda marked: _marked(marked, options, extra)
    _options(
        f"@task {getattr(function, '__name__', function)}", {k: v for k, v in options.items() if k != "id"}
    )
    return TaskFunction(function, options, None, extra)


task = _Marker()


def setup(function: "Any" = None) -> "Any":
    """Mark a function, or what `@task` made of it, as a setup."""
    made = function if isinstance(function, TaskFunction) else task(function)
    made.extra["setup"] = True
    return made


def teardown(function: "Any" = None, *, on_failure_fail_dagrun: bool = False) -> "Any":
    """Mark a function as a teardown; its setups are those directly before it."""
    if function is None:
        return lambda marked: teardown(marked, on_failure_fail_dagrun=on_failure_fail_dagrun)
    made = function if isinstance(function, TaskFunction) else task(function)
    made.extra["teardown"] = {"fails_run": True} if on_failure_fail_dagrun else {}
    return made


def bash(
    identifier: str,
    script: str,
    *,
    arguments: "Mapping[str, Any] | None" = None,
    expand: "Mapping[str, Any] | None" = None,
    decides: "str | None" = None,
    **options: "Any",
) -> Task:
    """A task that runs a script with bash; with `decides` (branch or short_circuit) what it writes to `RM_RESULT` says
    how the run goes on.

    Arguments arrive as variables `RM_ARG_<NAME>` (text as it is, everything else as JSON; up to 32 KiB each)
    and in the JSON file `RM_INPUTS`; `expand={"name": list}` makes an instance for each item.
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
            down.upstream[up.id] = None


def _schedule(schedule: "Any") -> "tuple[Any, Any]":
    """The times and the datasets of a schedule: a timedelta is a fixed interval, a list of datasets means all."""
    parts = list(schedule) if isinstance(schedule, list | tuple) else [schedule]
    waits = [part.expression() for part in parts if hasattr(part, "expression")]
    times = [_every(part) for part in parts if part is not None and not hasattr(part, "expression")]
    return times or None, None if not waits else waits[0] if len(waits) == 1 else {"all": waits}


def _every(part: "Any") -> "Any":
    return f"every {part.total_seconds():g}s" if hasattr(part, "total_seconds") else part


def _date(given: "str | date | None") -> "str | None":
    return given if given is None or isinstance(given, str) else given.isoformat()


def _options(where: str, options: "Mapping[str, Any]") -> "dict[str, Any]":
    """Options under their names of the definition; `retries=3` means `{"limit": 3}`. Raises SdkError."""
    fields = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise SdkError(f"{where}: there is no option {name}; options are {', '.join(_OPTIONS)}.")
        if value is None:
            continue
        if name == "outlets":
            value = [getattr(outlet, "uri", outlet) for outlet in value]
        fields[name] = {"limit": value} if name == "retries" and isinstance(value, int) else value
    return fields


def _params_schema(params: "Mapping[str, Any]") -> "dict[str, Any]":
    """`{"limit": 5}` as JSON Schema; a value that is a schema already (it has a type) stays."""
    if not params:
        return {}
    properties = {}
    for name, value in params.items():
        if isinstance(value, dict) and "type" in value:
            properties[name] = value
        else:
            properties[name] = {"type": _type_name(name, value), "default": value}
    return {"type": "object", "properties": properties}


def _type_name(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    for kind, text in names:
        if isinstance(value, kind):
            return text
    raise SdkError(
        f'Parameter {name}: give a default value or a schema such as {{"type": "string"}}, not {value!r}.'
    )
