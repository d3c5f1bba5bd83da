"""Random definitions of workflows: all kinds of tasks and ways to map, most options, groups, setups, awkward texts."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rmctl.spec import TRIGGER_RULES

# The workflows among the files of examples/, which also has their server.
EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[2] / "examples").iterdir()
    if path.suffix in (".py", ".yaml") and path.name != "bucket.py"
)
# Texts that YAML, JSON or Python could read as something else.
TEXTS = st.sampled_from(
    ["x", "", "yes", "null", "1e3", "2026-01-01", "a: b", "# no comment", "- x", "'\"\\", "tab\there", "two\nlines\n",
     "  led", "trailed  ", "ünï → ✓", "%s", "!x", "{a}", "[1", "*", "&a", "\u2028", "\u0085", "\ufeff", "=",
     "~", "0x1f"]
) | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0{"), max_size=12)  # fmt: skip
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VARIABLES = NAMES.filter(lambda name: not name.startswith("RM_"))
KEYS = TEXTS.filter(lambda text: text.isprintable())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
DURATIONS = st.sampled_from([1, 90, "90s", "5m", "2h"])
LABELS = st.dictionaries(st.sampled_from(["app", "a.b/c"]), st.sampled_from(["x", "", "on"]), max_size=2)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


RESOURCES = optional(
    cpu=st.sampled_from([1, 0.5, "500m", "2"]), memory=st.sampled_from(["512Mi", "2G", 2**30]),
    gpu=st.sampled_from([{"count": 2}, {"milli": 500, "models": ["A100"]}]),
)  # fmt: skip
JOB_FIELDS = {
    "resources": RESOURCES,
    "env": st.dictionaries(VARIABLES, TEXTS, max_size=2),
    "labels": LABELS,
    "retries": optional(limit=st.integers(0, 3), delay=DURATIONS, factor=st.sampled_from([1, 2.5])),
    "time_limit": DURATIONS,
    "intent": optional(pool=st.just("p"), goals=st.just({"cost": 5}), placement=st.just("spread")),
    "priority": st.integers(-5, 5),
    "on_preempt": st.just("fail"),
    "notice": st.just("20s"),
}
TASK_FIELDS = {
    **JOB_FIELDS,
    "trigger_rule": st.sampled_from(TRIGGER_RULES),
    "template": st.just(False),
    "variables": st.lists(NAMES, max_size=2),
    "connections": st.lists(NAMES, max_size=2),
    "outlets": st.lists(st.sampled_from(["s3://a", "b"]), max_size=2),
    "depends_on_past": st.booleans(),
    "wait_for_downstream": st.booleans(),
    "count": st.just(2),
    "setup": st.just(True),
}
TOLD = {
    "notify": st.lists(
        st.fixed_dictionaries({"on": st.sampled_from(["failure", ["success", "retry"]]), "to": st.just(["oncall"])}),
        max_size=2,
    ),
    "deadline": st.sampled_from(["2h", 90, {"after": "5m", "from": "scheduled"}]),
}
WEIGHTS = {"weight_rule": st.sampled_from(["upstream", "absolute", "critical_path"])}
# Of tasks with a job.
PLACES = optional(
    slots=st.sampled_from(["warehouse", {"name": "db", "count": 3}]), max_active=st.integers(1, 5),
    max_active_per_run=st.integers(1, 5), state=st.booleans(),
)  # fmt: skip
CACHE = st.sampled_from(["1d", 3600, {"ttl": "2h", "version": "2", "code": "c" * 64}])
RUN_WAIT = optional(allowed=st.just(["failed"]), failed=st.just([]), timeout=DURATIONS, soft_fail=st.booleans())
STARTS = RUN_WAIT.flatmap(lambda wait: st.booleans().map(lambda fresh: {**wait, "wait": True, "no_cache": fresh}))
POKE = optional(interval=DURATIONS, factor=st.just(2.0), soft_fail=st.booleans())
DATASETS = st.sampled_from(["s3://a", ["a", "b"], {"any": ["a", {"all": ["b", "c"]}]}])
FORM = st.just({"type": "object", "properties": {"n": {"type": "integer", "default": 1}}})


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A definition that the parser accepts, as a person may write it."""
    params = draw(st.dictionaries(VARIABLES, st.just({"type": "string", "default": "on"}), max_size=2))
    groups = draw(st.sampled_from([[], ["g"], ["g", "g.inner"], ["g", "other"]]))
    tasks: list[dict[str, Any]] = []
    while len(tasks) < 6 and (not tasks or draw(st.booleans())):
        tasks.append(_task(draw, f"t{len(tasks)}", tasks, sorted(params), groups))
    for number, group in enumerate(groups):
        tasks.append({"id": f"in{number}", "kind": "empty", "group": group})
    fields = optional(
        description=TEXTS, schedule=st.sampled_from(["@daily", "0 6 * * 1-5", ["@hourly", "every 90m"], "@continuous"]),
        timezone=st.just("Europe/Berlin"), catchup=st.booleans(), start_date=st.just("2026-01-01"),
        end_date=st.just("2026-12-31T06:00:00"), max_active_runs=st.integers(1, 9), max_active_tasks=st.integers(0, 9),
        datasets=DATASETS, defaults=optional(**JOB_FIELDS),
        max_active_tasks_all_runs=st.integers(1, 9), time_limit=DURATIONS, **WEIGHTS, **TOLD,
    )  # fmt: skip
    made = {"name": "w", **draw(fields), "bundle": "b" * 64, "tasks": tasks}
    if params:
        made["params"] = {"type": "object", "properties": params}
    if groups:
        described = draw(TEXTS)
        made["groups"] = [{"id": g, **({"description": described} if described else {})} for g in groups]
    return made


def _task(
    draw: st.DrawFn, name: str, before: list[dict[str, Any]], params: list[str], groups: list[str]
) -> dict[str, Any]:
    ids = [task["id"] for task in before]
    argument = st.builds(lambda value: {"value": value}, VALUES)
    if ids:
        argument |= st.fixed_dictionaries({"result": st.sampled_from(ids)}, optional={"key": st.sampled_from(["k", 0])})
    if params:
        argument |= st.builds(lambda chosen: {"param": chosen}, st.sampled_from(params))
    arguments = st.dictionaries(st.sampled_from(["a", "b"]), argument, max_size=2)
    told = draw(optional(**TOLD, **WEIGHTS, weight=st.integers(0, 9)))
    task: dict[str, Any] = {"id": name, **draw(optional(**TASK_FIELDS)), **told}
    kind = draw(st.sampled_from(["bash", "python", "sensor", "empty", "wait_until", "wait_for", "wait_for_run",
                                 "wait_for_dataset", "trigger_run", "approval", "service"]))  # fmt: skip
    task["kind"] = "python" if kind == "sensor" else kind
    match kind:
        case "bash":
            task |= {"script": draw(TEXTS.filter(str.strip)), "arguments": draw(arguments), **draw(optional(poke=POKE))}
        case "python" | "sensor":
            task |= {"file": "sub/a.py", "function": "f", "arguments": draw(arguments)}
            extra = {"poke": POKE} if kind == "sensor" else {"returns": st.just("script")}
            task |= draw(st.fixed_dictionaries(extra) if kind == "sensor" else optional(**extra))
        case "wait_until":
            task["arguments"] = {"time": {"value": draw(st.sampled_from(["06:30", "2026-01-01T00:00:00+01:00"]))}}
        case "wait_for":
            task["arguments"] = {"duration": {"value": draw(DURATIONS)}}
        case "wait_for_run":
            task["wait_for_run"] = {"workflow": "other", **draw(RUN_WAIT)}
        case "wait_for_dataset":
            waits = {"since": st.sampled_from(["triggered", "data_interval_start"]), "timeout": DURATIONS}
            task["wait_for_dataset"] = {"datasets": draw(DATASETS), **draw(optional(**waits, soft_fail=st.booleans()))}
            since = st.sampled_from([{"value": "06:30"}, *({"param": name} for name in params)])
            task["arguments"] = draw(optional(since=since, before=st.just({"value": "1d"})))
        case "trigger_run":
            task |= {"trigger_run": {"workflow": "other", **draw(STARTS)}, "arguments": draw(arguments)}
        case "service":
            chosen = draw(optional(replicas=st.integers(0, 5), wait=st.booleans(), timeout=DURATIONS))
            rolls = draw(optional(rollout=st.fixed_dictionaries({"min_ready": st.sampled_from(["1s", "1m30s"])})))
            job = {"groups": [{"command": ["serve"], "env": {"A": "b"}}], "labels": {"app": "web"}}
            task["service"] = {"spec": {"name": "web", "job": job, **rolls}, **chosen}
            task["arguments"] = draw(arguments)
        case "approval":
            task["approval"] = {"subject": "Go?", **draw(optional(text=TEXTS, form=FORM, users=st.just(["mia"])))}
            task["arguments"] = draw(arguments)
    if task["kind"] in ("bash", "python"):
        task |= draw(PLACES)
        if "poke" not in task and "setup" not in task and draw(st.booleans()):
            task["cache"] = draw(CACHE)
    if kind in ("bash", "python", "sensor", "trigger_run", "approval") and draw(st.booleans()):
        task["map"] = draw(_maps(ids, params))
    if ids:
        task["upstream"] = draw(st.lists(st.sampled_from(ids), max_size=2, unique=True))
    if groups and draw(st.booleans()):
        task["group"] = draw(st.sampled_from(groups))
    setups = [other["id"] for other in before if other.get("setup")]
    if setups and not task.keys() & {"setup", "trigger_rule", "cache"} and draw(st.booleans()):
        task["teardown"] = {"setups": setups[:1], **draw(optional(fails_run=st.booleans()))}
    return task


@st.composite
def _maps(draw: st.DrawFn, ids: list[str], params: list[str]) -> dict[str, Any]:
    """Every way to map, over literal lists, results and parameters."""
    source = st.builds(lambda listed: {"value": listed}, st.lists(VALUES, min_size=1, max_size=1))
    others = [{"result": name} for name in ids] + [{"result": name, "key": "k"} for name in ids]
    others += [{"param": name} for name in params]
    if others:
        source |= st.sampled_from(others)
    lists = draw(st.dictionaries(st.sampled_from(["m", "n", "class", "fillvalue"]), source, min_size=1, max_size=3))
    label = st.sampled_from(["{{ map_index }}", "no {{ ti.map_index }}: {{ task.op_kwargs['m']|default('x') }}"])
    limit = draw(optional(limit=st.integers(5, 50), label=label))
    match draw(st.sampled_from(["over", "zip", "kwargs"])):
        case "over":
            return {"over": lists, **draw(optional(order=st.permutations(list(lists)))), **limit}
        case "zip":
            return {"zip": lists, **draw(optional(fill=VALUES)), **limit}
    rows = {"value": draw(st.lists(st.dictionaries(st.sampled_from(["m", "class"]), VALUES, max_size=2), max_size=3))}
    chosen = draw(st.sampled_from([*others, rows]))
    return {"kwargs": chosen, **draw(optional(accepts=st.just(["class", "m"]))), **limit}
