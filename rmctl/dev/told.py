"""What `rmctl dev` says of a definition and does not do: caches, limits, deadlines, and who would be told of what."""

from collections.abc import Iterator, Mapping
from typing import Any

from rmctl.spec.quantities import format_duration, parse_seconds


def of_run(definition: Mapping[str, Any]) -> list[str]:
    """What a portal would heed for the whole run, in a few words each."""
    limit = [f"time limit of a run {_time(definition['time_limit'])}"] if "time_limit" in definition else []
    return [*limit, *_deadline(definition)]


def of_task(task: Mapping[str, Any]) -> list[str]:
    """The same for a task."""
    words = []
    if "cache" in task:
        words.append("nothing comes from its cache")
    if "slots" in task:
        words.append(f"without its slots {task['slots']['name']} ({task['slots']['count']})")
    limits = [f"{name} {task[name]}" for name in ("max_active", "max_active_per_run") if name in task]
    return [*words, *(f"without its {limit}" for limit in [*limits, *_deadline(task)])]


def hearers(source: Mapping[str, Any], occasion: str) -> list[str]:
    """The destinations that a workflow or a task would tell."""
    return sorted({name for rule in source.get("notify", ()) if occasion in rule["on"] for name in rule["to"]})


def _deadline(source: Mapping[str, Any]) -> Iterator[str]:
    deadline = source.get("deadline")
    if deadline is not None:
        since = "its scheduled time" if deadline.get("from") == "scheduled" else "the start of the run"
        yield f"deadline {_time(deadline['after'])} after {since}"


def _time(given: Any) -> str:
    return format_duration(parse_seconds(given))
