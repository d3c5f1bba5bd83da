"""`@task` and its kin: functions that become tasks when called inside a DAG. Like dag.py it imports nothing heavy."""

from rmctl.sdk.dag import Task, in_dag
from rmctl.sdk.mapping import Over, kwargs, zipped
from rmctl.sdk.options import SdkError, read_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_VARARGS, _VARKEYWORDS = 0x04, 0x08  # flags of a code object: *args, **kwargs


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

    def __call__(self, *args: "Any", **given: "Any") -> "Any":
        if not in_dag():
            return self.function(*args, **{**self._fixed, **given})
        return self._make(self._bind(args, {**self._fixed, **given}), None)

    def partial(self, **given: "Any") -> "TaskFunction":
        """The same function with some arguments given; followed by `.expand(...)`."""
        return TaskFunction(self.function, self._settings, {**self._fixed, **given}, self.extra)

    def override(self, **options: "Any") -> "TaskFunction":
        """The same function with other options, for example `id` or `resources`."""
        return TaskFunction(self.function, {**self._settings, **options}, self._fixed, self.extra)

    def expand(self, **lists: "Any") -> Task:
        """One instance for each item of a list (a literal one, a parameter, or another task's result), of several lists
        for each combination of their items; the last list varies fastest."""
        if not lists:
            raise SdkError(f"{self.function.__name__}.expand needs at least one argument with a list to map over.")
        return self._map(Over("over", lists))

    def expand_zip(self, **lists: "Any") -> Task:
        """One instance for each place of the lists, which are of the same length unless there is a `fillvalue` for what
        the shorter ones lack."""
        return self._map(zipped(**lists))

    def expand_kwargs(self, rows: "Any") -> Task:
        """One instance for each object of a list, which gives it arguments by name."""
        name, code = self.function.__name__, self.function.__code__
        for index, row in enumerate(rows if isinstance(rows, list | tuple) else ()):
            where = f"{name}.expand_kwargs, item {index}"
            if not isinstance(row, dict):
                raise SdkError(f"{where}: give an object of arguments by name, not {row!r}.")
            twice = sorted(row.keys() & self._fixed.keys())
            if twice:
                raise SdkError(f"{where}: {', '.join(twice)} is given by partial already; keep one.")
            self._bind((), {**self._fixed, **row}, where=where)
        any_name = code.co_flags & _VARKEYWORDS
        fixed = self._bind((), self._fixed, complete=False)
        return self._make(fixed, kwargs(rows, None if any_name else set(_names(code)) - fixed.keys()))

    def _map(self, over: Over) -> Task:
        bound = self._bind((), {**self._fixed, **over.lists})
        return self._make({name: value for name, value in bound.items() if name not in over.lists}, over)

    def _make(self, arguments: "dict[str, Any]", over: "Over | None") -> Task:
        options = dict(self._settings)
        chosen = options.pop("id", None)
        return Task(
            chosen or self.function.__name__,
            "python",
            options=options,
            function=self.function,
            arguments=arguments,
            over=over,
            extra=self.extra,
            rename=chosen is None,
        )

    def _bind(
        self, args: "tuple[Any, ...]", given: "dict[str, Any]", *, complete: bool = True, where: str = ""
    ) -> "dict[str, Any]":
        """Arguments by name. Raises SdkError for what the function does not take or, if `complete`, still misses."""
        function, code = self.function, self.function.__code__
        count = code.co_argcount
        names = code.co_varnames[:count]
        by_name = _names(code)
        where = where or f"Task {function.__name__}"
        if code.co_posonlyargcount or code.co_flags & _VARARGS:
            raise SdkError(
                f"{where}: its arguments are given by name; remove * and positional-only arguments."
            )
        if len(args) > count:
            raise SdkError(f"{where}: takes {count} positional arguments, {len(args)} are given.")
        bound = dict(zip(names, args, strict=False))
        for name, value in given.items():
            if name in bound:
                raise SdkError(f"{where}: argument {name} is given twice.")
            if name not in by_name and not code.co_flags & _VARKEYWORDS:
                raise SdkError(f"{where}: has no argument {name}; it takes {', '.join(by_name) or 'none'}.")
            bound[name] = value
        optional = {*names[count - len(function.__defaults__ or ()) :], *(function.__kwdefaults__ or ())}
        missing = [name for name in by_name if name not in bound and name not in optional]
        if missing and complete:
            raise SdkError(f"{where}: {', '.join(missing)} must be given.")
        return bound


def _names(code: "Any") -> "tuple[str, ...]":
    """The arguments of a function that may be given by name."""
    names: tuple[str, ...] = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    return names


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
    read_options(
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
