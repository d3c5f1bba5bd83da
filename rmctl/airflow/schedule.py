"""Airflow's timetables, dates and parameters as ours."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rmctl.spec.datasets import check_expression, check_uri
from rmctl.spec.errors import BadValue
from rmctl.spec.params import schema_faults
from rmctl.spec.schedule import check_schedule, check_timezone
from rmctl.spec.values import VARIABLE

from .findings import Level

Note = Callable[[Level, str], None]
# Words of a parameter's schema that only say how Airflow's form looks.
FORM_ONLY = {
    "default", "section", "values_display", "examples", "description_html", "description_md", "custom_html_form",
}  # fmt: skip
TRIGGER_NOTE = (
    "a run has the start of its data interval as logical time, so ds and the like name the interval before; Airflow "
    "gives {what} the moment of the run. data_interval_end is that moment here"
)


CATCHUP_NOTE = "catchup: the push makes a run for each interval since start_date, also those that Airflow has made"
# What the portal takes as a date; Airflow's earliest and latest moments mean that there is none.
FIRST_YEAR, LAST_YEAR = 1970, 2200


def read(dag: Mapping[str, Any], now: datetime, note: Note) -> dict[str, Any]:
    """The fields of a definition that say when it runs; `note(level, message)` takes what is different."""
    timetable = dag["schedule"]
    fields: dict[str, Any] = {}
    times = _times(timetable["type"], timetable["fields"], note)
    condition = timetable["fields"].get("dataset_condition") or timetable["fields"].get("asset_condition")
    if condition:
        try:
            fields["datasets"] = check_expression(_condition(condition))
        except (BadValue, KeyError) as error:
            why = error.message if isinstance(error, BadValue) else "it waits for something that has no URI"
            note("lost", f"schedule by datasets: {why}")
    if times:
        try:
            fields["schedule"] = check_schedule(times)
        except BadValue as error:
            note("lost", f"schedule: {error.message}")
    zone = _zone(timetable["fields"], dag["timezone"], note)
    if zone != "UTC":
        fields["timezone"] = zone
    if fields.get("schedule") and dag["end_date"] and not dag["catchup"] and _past(dag["end_date"]["$time"], now):
        note("changed", f"schedule {fields.pop('schedule')} has ended at {dag['end_date']['$time']}: it has none here")
    elif fields.get("schedule"):
        for name in ("start_date", "end_date"):
            if dag[name] and FIRST_YEAR <= int(dag[name]["$time"][:4]) < LAST_YEAR:
                fields[name] = _date(dag[name]["$time"], zone)
        if dag["catchup"]:
            fields["catchup"] = True
            note("changed", CATCHUP_NOTE)
    elif dag["end_date"]:
        note("changed", "end_date has no meaning without a schedule by time")
    return fields


def _times(kind: str, fields: Mapping[str, Any], note: Note) -> str | None:
    if kind in ("NullTimetable", "DatasetTriggeredTimetable", "AssetTriggeredTimetable", "PartitionedAssetTimetable"):
        if kind.startswith("Partitioned"):
            note("lost", "schedule: partitions of assets; each update of the asset makes a run")
        return None
    if kind == "OnceTimetable":
        note("changed", "schedule @once: trigger it once by hand, nothing does so by itself")
        return None
    if kind == "ContinuousTimetable":
        return "@continuous"
    if kind in ("CronDataIntervalTimetable", "CronTriggerTimetable"):
        if kind == "CronTriggerTimetable":
            note("changed", TRIGGER_NOTE.format(what="this schedule"))
        return str(fields["expression"])
    if kind in ("DeltaDataIntervalTimetable", "DeltaTriggerTimetable"):
        if kind == "DeltaTriggerTimetable":
            note("changed", TRIGGER_NOTE.format(what="this schedule"))
        delta = fields["delta"]
        seconds = delta.get("$seconds") if isinstance(delta, Mapping) else delta
        if not isinstance(seconds, int | float):
            note("lost", "schedule: a calendar interval (relativedelta); give it as cron")
            return None
        return f"every {seconds:g}s"
    if kind == "MultipleCronTriggerTimetable":
        note("changed", TRIGGER_NOTE.format(what="this schedule"))
        return "; ".join(str(inner["expression"]) for inner in _inner(fields))
    if kind in ("DatasetOrTimeSchedule", "AssetOrTimeSchedule"):
        inner = fields["timetable"]
        return _times(inner["type"], inner["value"], note)
    note("lost", f"schedule: the timetable {kind} is not known here; trigger the workflow by hand or by API")
    return None


def _inner(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The timetables of a timetable of several."""
    if "timetables" in fields:
        return [inner.get("value", inner) for inner in fields["timetables"]]
    return [{"expression": expression} for expression in fields["expressions"]]


def _zone(fields: Mapping[str, Any], own: str, note: Note) -> str:
    inner = fields.get("timetable")
    given = fields.get("timezone") or (inner["value"].get("timezone") if isinstance(inner, Mapping) else None) or own
    try:
        return check_timezone(str(given) if not isinstance(given, Mapping) else own)
    except BadValue as error:
        note("lost", f"timezone: {error.message}")
        return "UTC"


def _past(text: str, now: datetime) -> bool:
    return datetime.fromisoformat(text) < now


def _date(text: str, zone: str) -> str:
    """A moment in the zone of the workflow: a date where it is midnight there."""
    moment = datetime.fromisoformat(text).astimezone(ZoneInfo(zone))
    if (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0):
        return moment.date().isoformat()
    return moment.isoformat()


def _condition(written: Mapping[str, Any]) -> Any:
    """Airflow's serialised condition as one of ours."""
    kind = str(written["__type"]).rsplit(".", 1)[-1].lower()
    if kind.endswith(("_all", "_any")):
        return {kind[-3:]: [_condition(inner) for inner in written["objects"]]}
    if "alias" in kind or kind.endswith("_ref"):
        raise BadValue("bad_datasets", f"{kind.replace('_', ' ')} {written.get('name', '')}: name the dataset itself")
    return check_uri(written["uri"])


def params(declared: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """The parameters as a schema of ours; what it does not check, or has no default for, is noted."""
    properties: dict[str, Any] = {}
    required = []
    for name, param in declared.items():
        if not VARIABLE.fullmatch(name):
            note("lost", f"params: {name!r} is not a name here; use letters, digits and _")
            continue
        schema = {key: value for key, value in (param.get("schema") or {}).items() if key not in FORM_ONLY}
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        if param.get("description"):
            schema["description"] = param["description"]
        if holds_objects(param.get("value")):
            note("lost", f"params: the default of {name} is not JSON; it has none here")
        elif "value" in param:
            schema["default"] = param["value"]
        refused = sorted({_keyword(fault["field"], name) for fault in schema_faults({"properties": {name: schema}})})
        for key in refused:
            del schema[key]
        # Airflow accepts a default that its own schema refuses (often None) and asks at the trigger.
        if "default" not in schema:
            required.append(name)
        unchecked = ", ".join(key for key in refused if key != "default")
        if unchecked:
            note("changed", f"params: {unchecked} of {name} is not checked here")
        properties[name] = schema
    if not properties:
        return {}
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _keyword(field: str, name: str) -> str:
    return field.removeprefix(f"params.properties.{name}.").partition(".")[0]


def holds_objects(value: Any) -> bool:
    """Whether a value of the facts has something in it that is not plain JSON."""
    if isinstance(value, Mapping):
        return any(str(key).startswith("$") or holds_objects(item) for key, item in value.items())
    return isinstance(value, list) and any(holds_objects(item) for item in value)
