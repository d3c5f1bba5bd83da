"""`cache` of a task: its result is taken from an earlier success with the same code and the same inputs.

What the result may depend on has to be known before the task starts, so it is what the definition, the arguments and
the templates of the task say; what a task looks up by itself (a clock, the network, a file that is not in the bundle,
`rmctl.state`) is not part of it. docs/tasks.md, section Result cache, has the rules.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, StringConstraints

from .errors import BadValue, FieldError, field_error
from .mapping import MapSpec
from .quantities import Seconds
from .values import Digest, Strict, canonical_json

if TYPE_CHECKING:
    from .tasks import CompiledTask

YEAR = 366 * 86400
# What differs in every run or at every try: a task that reads it would never find an earlier result.
FRESH = {
    "run_id": "run_id is different in every run",
    "try_number": "try_number is different at every try",
    "now": "the time of rendering is always another",
    "utcnow": "the time of rendering is always another",
    "today": "the time of rendering is always another",
    "macros.random": "it is different every time",
    "macros.uuid": "it is different every time",
    "macros.time": "it is different every time",
    "lipsum": "it is different every time",
}
_INTERVAL = frozenset({"data_interval_start", "data_interval_end"})
_LOGICAL = frozenset(
    {
        "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "logical_date", "logical_time", "execution_date",
        "yesterday_ds", "yesterday_ds_nodash", "tomorrow_ds", "tomorrow_ds_nodash", "dag_run",
    }
)  # fmt: skip


class CacheSpec(Strict):
    """For how long (`ttl`) the result of a success may stand for another start of the task with the same key.

    `version` is the author's own part of the key: another text makes everything anew. `ignore` names arguments that
    do not matter. `code` is the digest of what the task runs, as `rmctl push` finds it; without it the whole bundle
    counts.
    """

    ttl: Seconds = Field(gt=0, le=YEAR, json_schema_extra={"examples": ["1d"]})
    version: Annotated[str, StringConstraints(max_length=200)] = ""
    ignore: list[Annotated[str, StringConstraints(max_length=200)]] = Field(default_factory=list, max_length=100)
    code: Digest | None = None


def _spelled_out(given: Any) -> Any:
    """`cache: 1d` means `cache: {ttl: 1d}`."""
    return {"ttl": given} if isinstance(given, str | int | float) and not isinstance(given, bool) else given


Cache = Annotated[
    CacheSpec | None,
    BeforeValidator(_spelled_out, json_schema_input_type=CacheSpec | str | int | None),
]


def check_cache(
    cache: CacheSpec, kind: str, *, fields: Iterable[str], arguments: Iterable[str], mapping: MapSpec | None
) -> None:
    """Refuse a cache where a result says nothing about the next time. Raises BadValue.

    `fields` are those that the task has of its kind and role.
    """
    if kind not in ("bash", "python"):
        raise BadValue("wrong_kind", f"cache does not belong to a task of kind {kind}: it runs nothing; remove it.")
    why = {
        "poke": "A sensor looks at what changes outside, so its result is not kept",
        "setup": "A setup is there for its effect, so its result is not kept",
        "teardown": "A teardown is there for its effect, so its result is not kept",
    }
    for name in fields:
        if name in why:
            raise BadValue("wrong_kind", f"{why[name]}: remove cache.")
    _check_ignored(set(cache.ignore), set(arguments), mapping)


def _check_ignored(ignored: set[str], known: set[str], mapping: MapSpec | None) -> None:
    if mapping is not None:
        # Of a product each list is needed to tell the instances apart, otherwise one argument is enough.
        same = ignored & mapping.names if mapping.over is not None else mapping.names
        if same and same <= ignored:
            which = "all instances" if mapping.sources.keys() <= ignored else "instances that differ in nothing else"
            over = " and ".join(sorted(same))
            raise BadValue(
                "bad_cache", f"ignore names {over}, over which the task is mapped: {which} would be the same one."
            )
        known |= {*mapping.names, *(mapping.accepts or ())}
    whatever = mapping is not None and mapping.open and mapping.accepts is None
    if not whatever and (unknown := sorted(ignored - known)):
        raise BadValue("bad_cache", f"ignore names {unknown[0]}, but the task has no such argument.")


def cache_faults(definition: Mapping[str, Any], compiled: Mapping[str, "CompiledTask"]) -> list[FieldError]:
    """Cached tasks whose templates read what is never the same twice."""
    errors = []
    for index, task in enumerate(definition["tasks"]):
        template = compiled[task["id"]].template
        if "cache" not in task or template is None:
            continue
        for name in sorted(template.needs.names & FRESH.keys()):
            message = f"A template of the task reads {name}, and {FRESH[name]}: nothing would ever come from the cache."
            errors.append(field_error(f"tasks[{index}].cache", message, "never_cached"))
    return errors


class Circumstances(NamedTuple):
    """What of a run may be part of a key."""

    tenant: int
    params: Mapping[str, Any]
    logical_time: str
    interval: Sequence[str]
    map_index: int
    # The versions of the tenant's variables, connections and secrets, by what the job refers to them as.
    stored: Mapping[str, str]


class CacheKey(NamedTuple):
    """The key, and a short digest of each of its parts, by a name for people."""

    digest: str
    parts: dict[str, str]


def references(task: "CompiledTask") -> set[str]:
    """The tenant's variables, connections and secrets that a task gets, as its job names them."""
    return set(task.base["groups"][0].get("secrets", {}).values())


def key_of(task: "CompiledTask", inputs: Mapping[str, Any], around: Circumstances) -> CacheKey:
    """The key of a task with a cache for these inputs (`CompiledTask.resolve`): SHA-256 over all of its parts."""
    from .templates import KEY

    assert task.cache is not None
    parts = dict(task.cache_parts)
    for name, value in inputs.items():
        if name != KEY and name not in task.cache.ignore:
            parts[f"argument {name}"] = value
    for reference, name in _stored_names(task):
        parts[name] = around.stored.get(reference, "")
    if task.template is not None:
        needs = task.template.needs
        parts |= {f"result of {name}": value for name, value in inputs[KEY]["results"].items()}
        if {"params", "dag_run"} & needs.names:
            parts |= {f"parameter {name}": value for name, value in around.params.items()}
        if needs.names & _LOGICAL:
            parts["logical time"] = around.logical_time
        if needs.names & _INTERVAL:
            parts["data interval"] = [*around.interval] or [around.logical_time]
        if "map_index" in needs.names:
            parts["map index"] = around.map_index
        if {"dag", "task", "dag_id", "task_id"} & needs.names:
            parts["task"] = [task.workflow, task.id]
        if needs.events:
            parts["dataset events"] = inputs[KEY].get("events", {})
    digests = {name: hashlib.sha256(canonical_json(value)).hexdigest() for name, value in parts.items()}
    whole = hashlib.sha256(canonical_json([1, around.tenant, digests])).hexdigest()
    return CacheKey(whole, {name: digest[:16] for name, digest in sorted(digests.items())})


def fixed_parts(definition: Mapping[str, Any], task: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a key that are the same whatever a task is given; `group` is that of its job."""
    cache = task["cache"]
    code: list[Any] = [cache.get("code") or definition["bundle"], task.get("returns"), task.get("template", True)]
    parts: dict[str, Any] = {"code": code}
    if task["kind"] == "bash":
        parts["script"] = task["script"]
    else:
        parts["function"] = [task["file"], task["function"]]
    if cache.get("version"):
        parts["version"] = cache["version"]
    if group.get("image"):
        parts["image"] = group["image"]
    if group.get("secrets"):
        parts["secrets"] = group["secrets"]
    if task.get("count", 1) != 1:
        parts["members"] = [task["count"], task.get("min_count")]
    parts |= {f"env {name}": value for name, value in group["env"].items() if not name.startswith("RM_")}
    return parts


def _stored_names(task: "CompiledTask") -> list[tuple[str, str]]:
    """(reference, name for people) of what the task gets of the tenant's."""
    from .tasks import CONNECTION, OPTIONAL_VARIABLE, VARIABLE

    found = []
    for reference in sorted(references(task)):
        kind = next(
            (kind for kind in (VARIABLE, OPTIONAL_VARIABLE, CONNECTION) if reference.startswith(kind)), ""
        )
        noun = {VARIABLE: "variable", OPTIONAL_VARIABLE: "variable", CONNECTION: "connection"}.get(kind, "secret")
        found.append((reference, f"{noun} {reference.removeprefix(kind)}"))
    return found
