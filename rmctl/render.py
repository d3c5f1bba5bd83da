"""`python -m rmctl.render COMMAND…`: render the templates of a task, then become the task.

Runs as the task, in its sandbox and under its limits, so that a template costs nobody else anything, whoever wrote it.
The templates are in COMMAND, in variables and in `RM_INPUTS`, whose entry `rm:template` says which they are and has the
values they read. What was rendered is kept as an artifact, without the values of secrets. Exit status 78: a template
could not be rendered; the log says which and why.
"""

import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from rmctl.spec.templates import KEY, MARK, STATUS
from rmctl.stored import connection, connections, variable

# An author's loop ends here with a message; what is stuck inside of one operation ends with the task's time limit.
SECONDS = 30
# The kernel takes no longer argument.
ARGUMENT_BYTES = 128 * 1024 - 1
VARIABLE_BYTES = 32 * 1024
ARTIFACT = "rendered-command.txt"


class RenderError(Exception):
    """A template cannot be rendered; the message says which and why."""


class Moment(datetime):
    """A time with what command lines written for Airflow ask of one."""

    def in_timezone(self, zone: str) -> "Moment":
        return self.astimezone(ZoneInfo(zone))

    in_tz = in_timezone

    def add(self, *, years: int = 0, months: int = 0, **amounts: float) -> "Moment":
        """Later by this much; a day that the month does not have becomes its last."""
        month = self.year * 12 + self.month - 1 + years * 12 + months
        year, month = divmod(month, 12)
        last = (datetime(year + (month + 1) // 12, (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
        return self.replace(year=year, month=month + 1, day=min(self.day, last)) + timedelta(**amounts)

    def subtract(self, **amounts: float) -> "Moment":
        return self.add(**{name: -amount for name, amount in amounts.items()})

    def start_of(self, unit: str) -> "Moment":
        """The first moment of the `hour`, `day`, `week` (Monday), `month` or `year`."""
        begin = self.replace(minute=0, second=0, microsecond=0)
        if unit == "hour":
            return begin
        begin = begin.replace(hour=0)
        if unit == "week":
            return begin - timedelta(days=begin.weekday())
        if unit not in ("day", "month", "year"):
            raise RenderError(f"start_of: {unit!r} is none of hour, day, week, month and year")
        return begin if unit == "day" else begin.replace(day=1, month=1 if unit == "year" else begin.month)

    def to_date_string(self) -> str:
        return f"{self:%Y-%m-%d}"

    def to_datetime_string(self) -> str:
        return f"{self:%Y-%m-%d %H:%M:%S}"

    @property
    def int_timestamp(self) -> int:
        return int(self.timestamp())


def ds(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def ds_nodash(moment: datetime) -> str:
    return f"{moment:%Y%m%d}"


def ts(moment: datetime) -> str:
    return moment.isoformat()


def ts_nodash(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S}"


def ts_nodash_with_tz(moment: datetime) -> str:
    return moment.isoformat().replace("-", "").replace(":", "")


class Macros:
    """Functions and modules under `macros`."""

    import json
    import random
    import time
    import uuid

    datetime = datetime
    timedelta = timedelta

    @staticmethod
    def ds_add(text: str, days: int) -> str:
        return ds(datetime.strptime(text, "%Y-%m-%d") + timedelta(days=days))

    @staticmethod
    def ds_format(text: str, given: str, wanted: str) -> str:
        return datetime.strptime(text, given).strftime(wanted)


class Facts:
    """An object of a few named values."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Instance(Facts):
    """`ti`."""

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", **_: Any) -> Any:
        """The result of a task, or those of several as a list; with a key, that part of it (None without)."""
        if not isinstance(task_ids, str):
            return [self.xcom_pull(name, key) for name in task_ids]
        result = self.results.get(task_ids)
        if key == "return_value":
            return result
        return result.get(key) if isinstance(result, dict) else None


class Variables:
    """`var.value` and `var.json`."""

    def __init__(self, decode: bool) -> None:
        self._decode = decode

    def __getitem__(self, name: str) -> Any:
        return variable(name, json=self._decode)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def get(self, name: str, *default: Any, **named: Any) -> Any:
        """The variable, or the default that is given."""
        return variable(name, *default, *named.values(), json=self._decode)


class Connections:
    """`conn`."""

    def __getitem__(self, name: str) -> Any:
        try:
            return connection(name)
        except KeyError as error:
            raise RenderError(error.args[0]) from None

    __getattr__ = get = __getitem__


def main(command: list[str]) -> NoReturn:
    """Render and execute."""
    try:
        with open(os.environ["RM_INPUTS"], encoding="utf-8") as stream:
            inputs = json.load(stream)
        given = inputs.pop(KEY)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        command = _render(command, inputs, given)
        signal.alarm(0)
        if command[0] == "bash" and shutil.which("bash") is None:
            command = ["sh", *command[1:]]
        os.execvp(command[0], command)
    except RenderError as error:
        print(f"template: {error}", file=sys.stderr)
    except OSError as error:
        print(f"template: {command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(STATUS)


def _too_long(*_: object) -> None:
    raise RenderError(f"it did not render within {SECONDS} seconds")


def _render(command: list[str], inputs: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """The rendered command; rendered variables and arguments are put where the task finds them."""
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {f.__name__: f for f in (ds, ds_nodash, ts, ts_nodash, ts_nodash_with_tz)}
    context = _context(given)
    shown: dict[str, Any] = {}

    def render(where: str, value: Any) -> Any:
        if isinstance(value, list):
            return [render(where, item) for item in value]
        if isinstance(value, dict):
            return {name: render(where, item) for name, item in value.items()}
        return _text(environment, context, where, value) if isinstance(value, str) and MARK.search(value) else value

    if given["script"]:
        command = [*command[:-1], render("script", command[-1])]
    for name in given["env"]:
        shown[name] = os.environ[name] = _variable(f"env.{name}", render(f"env.{name}", os.environ[name]))
    for name in given["arguments"]:
        inputs[name] = render(f"arguments.{name}", inputs[name])
        text = inputs[name] if isinstance(inputs[name], str) else json.dumps(inputs[name], ensure_ascii=False)
        shown[f"RM_ARG_{name.upper()}"] = text
        if given["bash"] and len(text.encode()) <= VARIABLE_BYTES:
            os.environ[f"RM_ARG_{name.upper()}"] = text
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "inputs.json")
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(inputs, stream, ensure_ascii=False)
    os.environ["RM_INPUTS"] = path
    _keep(command[-1] if given["script"] else "", shown)
    return command


def _variable(where: str, text: str) -> str:
    if "\0" in text or len(text.encode()) > ARGUMENT_BYTES:
        raise RenderError(f"{where}: it became longer than {ARGUMENT_BYTES} bytes, or has a NUL character in it")
    return text


def _text(environment: SandboxedEnvironment, context: dict[str, Any], where: str, text: str) -> str:
    try:
        size, parts = 0, []
        for part in environment.from_string(text).generate(context):
            size += len(part)
            if size > ARGUMENT_BYTES:
                raise RenderError(f"{where}: it became longer than {ARGUMENT_BYTES} bytes; pass large data as inputs")
            parts.append(part)
        return _variable(where, "".join(parts))
    except RenderError:
        raise
    except TemplateError as error:
        raise RenderError(f"{where}: {_line(error)}{error.message}") from None
    except Exception as error:
        raise RenderError(f"{where}: {_line(error)}{type(error).__name__}: {error}") from None


def _line(error: BaseException) -> str:
    """`line 3: `, the innermost line of the template that an error passed."""
    line, frames = "", error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == "<template>":
            line = f"line {frames.tb_lineno}: "
        frames = frames.tb_next
    return line


def _keep(script: str, shown: dict[str, str]) -> None:
    """What was rendered, as an artifact of the first member; values of secrets are left out."""
    folder = os.environ.get("RM_ARTIFACTS")
    if not folder or os.environ.get("RM_RANK", "0") != "0":
        return
    text = "".join(f"{name}={value}\n" for name, value in shown.items()) + script
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    with open(os.path.join(folder, ARTIFACT), "w", encoding="utf-8") as stream:
        stream.write(text)


def _secrets() -> set[str]:
    """The values that must not be shown."""
    found = set()
    for name in connections():
        found |= connection(name).secrets()
    # Shorter ones would black out half of the text and are guessed anyway.
    return {text for text in found if len(text) >= 4}


def _context(given: dict[str, Any]) -> dict[str, Any]:
    env = os.environ
    logical = _moment(env["RM_LOGICAL_TIME"])
    start = _moment(env.get("RM_DATA_INTERVAL_START") or env["RM_LOGICAL_TIME"])
    end = _moment(env.get("RM_DATA_INTERVAL_END") or env["RM_LOGICAL_TIME"])
    index = env.get("RM_MAP_INDEX", "")
    own = {"dag_id": env["RM_WORKFLOW"], "task_id": env["RM_TASK_ID"], "run_id": env["RM_RUN_ID"]}
    instance = Instance(
        **own,
        map_index=int(index) if index else -1,
        try_number=int(env.get("RM_ATTEMPT", "1")),
        results=given["results"],
    )
    yesterday, tomorrow = logical - timedelta(days=1), logical + timedelta(days=1)
    return {
        "ds": ds(logical), "ds_nodash": ds_nodash(logical), "ts": ts(logical), "ts_nodash": ts_nodash(logical),
        "ts_nodash_with_tz": ts_nodash_with_tz(logical), "logical_date": logical, "logical_time": logical,
        "execution_date": logical, "data_interval_start": start, "data_interval_end": end,
        "yesterday_ds": ds(yesterday), "yesterday_ds_nodash": ds_nodash(yesterday),
        "tomorrow_ds": ds(tomorrow), "tomorrow_ds_nodash": ds_nodash(tomorrow),
        "params": given["params"], "run_id": own["run_id"],
        "dag": Facts(dag_id=own["dag_id"], timezone=logical.tzinfo),
        "task": Facts(task_id=own["task_id"]),
        "dag_run": Facts(run_id=own["run_id"], dag_id=own["dag_id"], conf=given["params"], logical_date=logical),
        "ti": instance, "task_instance": instance,
        "var": Facts(value=Variables(False), json=Variables(True)), "conn": Connections(), "macros": Macros(),
        "triggering_dataset_events": given.get("events") or {}, "triggering_asset_events": given.get("events") or {},
    }  # fmt: skip


def _moment(text: str) -> Moment:
    """A time in UTC, as Airflow gives all of them."""
    return Moment.fromisoformat(text).astimezone(UTC)


if __name__ == "__main__":
    main(sys.argv[1:])
