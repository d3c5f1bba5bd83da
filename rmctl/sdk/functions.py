"""`@task` and its kin: functions that become tasks when called inside a DAG. Like dag.py it imports nothing heavy."""

from rmctl.sdk.dag import Task, in_dag
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

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        if not in_dag():
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
