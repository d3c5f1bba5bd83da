"""`rmctl simulate` and `rmctl replay`: what would happen, and what would have happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rmctl.cli.failures import UsageError
from rmctl.cli.output import ago, clean, print_json, print_table, span, state, stdout
from rmctl.cli.session import client, tenant_of
from rmctl.client import Client
from rmctl.sdk import yaml_loader
from rmctl.sdk.options import SdkError
from rmctl.spec.errors import BadValue
from rmctl.spec.quantities import parse_cpu, parse_duration, parse_size

# What a quota counts: how an amount is read, and told.
AMOUNTS = {"cpu": parse_cpu, "gpu": parse_cpu, "memory": parse_size, "storage": parse_size}
ROWS = 50


@dataclass(frozen=True, slots=True)
class Question:
    """The options of `simulate` as given."""

    file: Path | None
    job: list[Path] | None
    cancel: list[int] | None
    add_nodes: list[str] | None
    remove_node: list[str] | None
    cordon_node: list[str] | None
    lose_cluster: list[str] | None
    quota: list[str] | None
    budget: list[str] | None
    policy: str | None
    horizon: str | None
    run_times: str | None
    tenant: str | None

    def body(self, asked: Client) -> dict[str, Any]:
        """The request: the file, and what the options add to it."""
        body = load(self.file) if self.file else {}
        if "horizon" in body:
            body["horizon_seconds"] = seconds(body.pop("horizon"), "horizon")
        if self.horizon is not None:
            body["horizon_seconds"] = seconds(self.horizon, "--horizon")
        for name, value in (("policy", self.policy), ("run_times", self.run_times)):
            if value is not None:
                body[name] = value
        added = {
            "jobs": [{"spec": load(path), "tenant": tenant_of(self.tenant)} for path in self.job or []],
            "cancel": [{"job": number} for number in self.cancel or []],
            "add_nodes": [_nodes(text) for text in self.add_nodes or []],
            "remove_nodes": [{"node": name} for name in self.remove_node or []],
            "cordon_nodes": [{"node": name} for name in self.cordon_node or []],
            "lose_clusters": [{"cluster": name} for name in self.lose_cluster or []],
            "quotas": [_quota(asked, text) for text in self.quota or []],
            "budgets": [_budget(text) for text in self.budget or []],
        }
        for name, items in added.items():
            if items:
                body[name] = [*(body.get(name) or []), *items]
        for item in body.get("jobs") or []:
            if isinstance(item, dict) and item.get("tenant") is None:
                item.pop("tenant", None)
        return body


def load(file: Path) -> dict[str, Any]:
    """An object of a YAML or JSON file. Raises UsageError."""
    try:
        data = yaml_loader.parse(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    except SdkError as error:
        raise UsageError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{file}: give an object of names and values.")
    return data


def seconds(text: object, option: str) -> int:
    """Whole seconds of a duration. Raises UsageError."""
    try:
        return max(1, round(parse_duration(text)))
    except BadValue as error:
        raise UsageError(f"{option}: {error.message}") from None


def _nodes(text: str) -> dict[str, Any]:
    """`node-7` or `node-7=2`: as many more like it."""
    name, equals, count = text.partition("=")
    if not name or (equals and not count.isdigit()):
        raise UsageError(f"--add-nodes {text!r}: give NODE or NODE=COUNT, a node that the new ones are like.")
    return {"like": name, "count": int(count) if equals else 1}


def _quota(asked: Client, text: str) -> dict[str, Any]:
    """`vision.gpu=+2` or `vision.a100.gpu=4`: the flavor may be left out where the quota has only one."""
    named, equals, amount = text.partition("=")
    parts = named.split(".")
    if not equals or len(parts) not in (2, 3) or parts[-1] not in AMOUNTS:
        raise UsageError(
            f"--quota {text!r}: give QUOTA.RESOURCE=AMOUNT or QUOTA.FLAVOR.RESOURCE=AMOUNT with the resource "
            f"{', '.join(AMOUNTS)}; +AMOUNT and -AMOUNT change what there is."
        )
    sign = amount[:1] if amount[:1] in "+-" else ""
    try:
        value = AMOUNTS[parts[-1]](amount.removeprefix(sign))
    except BadValue as error:
        raise UsageError(f"--quota {text!r}: {error.message}") from None
    flavor = parts[1] if len(parts) == 3 else _only_flavor(asked, parts[0], parts[-1])
    item = {"quota": parts[0], "flavor": flavor, "resource": parts[-1]}
    return {**item, "change": -value if sign == "-" else value} if sign else {**item, "nominal": value}


def _budget(text: str) -> dict[str, Any]:
    """`7=120`, or `7=none` for as if it were not there."""
    number, _, amount = text.partition("=")
    try:
        return {"budget": int(number), "amount": None if amount == "none" else float(amount)}
    except ValueError:
        raise UsageError(f"--budget {text!r}: give BUDGET=AMOUNT or BUDGET=none, a budget by its number.") from None


def _only_flavor(asked: Client, quota: str, resource: str) -> str:
    row = next((row for row in asked.pages("quotas") if row.get("name") == quota), None)
    if row is None:
        raise UsageError(f"--quota: there is no quota {quota} that you can see.")
    flavors = sorted({cell["flavor"] for cell in row.get("cells", []) if cell["resource"] == resource})
    if len(flavors) != 1:
        known = f"one of {', '.join(flavors)}" if flavors else "its flavor, as it has none with it yet"
        raise UsageError(f"--quota: name the flavor of {quota}.{resource}: {known}.")
    return flavors[0]


def simulate(question: Question, as_json: bool) -> None:
    """Ask, and show what the changes affect."""
    with client() as asked:
        told = asked.post("simulate", question.body(asked))
    if as_json:
        print_json(told)
        return
    changed = [row for row in told["jobs"] if row["changed"]]
    shown = changed or told["jobs"]
    stdout().print(f"{told['affected']} of {told['total']} jobs fare differently until {_time(told['until'])}")
    rows = [
        (
            "new" if row["job"] is None else row["job"],
            row["name"],
            row["tenant"],
            _start(row["before"]),
            _start(row["after"]),
            "" if row["after"] is None else state(row["after"]["outcome"]),
            _evicted(row["after"]),
        )
        for row in shown[:ROWS]
    ]
    print_table(("job", "name", "tenant", "starts", "would start", "then", "detail"), rows, empty="no jobs")
    if len(shown) > ROWS:
        stdout().print(f"and {len(shown) - ROWS} more; --json has all", style="dim")
    if told.get("before") and told.get("after"):
        stdout().print()
        _figures([("as it is", told["before"]), ("with the changes", told["after"])])


def _time(text: str) -> str:
    return f"{clean(text)[:16].replace('T', ' ')} UTC ({ago(text)})"


def _start(course: dict[str, Any] | None) -> str:
    if course is None:
        return ""
    return ago(course["starts_at"]) if course["starts_at"] else course["outcome"]


def _evicted(course: dict[str, Any] | None) -> str:
    if course is None:
        return ""
    victims = [f"job {job}" if job is not None else "another" for job in course["evicted_for"]]
    return f"evicted for {', '.join(victims)}" if victims else str(course["detail"])


def _figures(rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    columns = ("", "jobs", "ended", "mean wait", "p95 wait", "slowdown", "p95", "cpu", "gpu", "evicted", "fairness")
    table = [
        (
            name,
            told["jobs"],
            told["finished"],
            span(told["wait_mean_seconds"]),
            span(told["wait_p95_seconds"]),
            f"{told['slowdown_mean']:.2f}",
            f"{told['slowdown_p95']:.2f}",
            f"{100 * told['utilisation'].get('cpu', 0):.1f} %",
            f"{100 * told['utilisation'].get('gpu', 0):.1f} %",
            told["evictions"],
            f"{told['fairness']:.3f}",
        )
        for name, told in rows
    ]
    print_table(columns, table, right=columns[1:])


def replay(
    since: str, until: str | None, policies: list[str] | None, budgets: str | None, lending: str | None, as_json: bool
) -> None:
    """Run a recorded period again and compare."""
    body = {
        "since": _moment(since, "--from"),
        "until": _moment(until, "--to") if until else datetime.now(UTC).isoformat(),
        "policies": policies or ["present"],
        **{name: value for name, value in (("budgets", budgets), ("lending", lending)) if value is not None},
    }
    with client() as asked:
        told = asked.post("replay", body)
    if as_json:
        print_json(told)
        return
    left = f", {told['left_out']} left out" if told["left_out"] else ""
    stdout().print(f"{told['jobs']} jobs on {told['nodes']} nodes{left}")
    _figures([("recorded", told["recorded"]), *told["policies"].items()])


def _moment(text: str, option: str) -> str:
    """A time as ISO 8601; `24h` means that long ago. Raises UsageError."""
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        pass
    try:
        return (datetime.now(UTC) - timedelta(seconds=parse_duration(text))).isoformat()
    except BadValue:
        raise UsageError(
            f"{option} {text!r}: give a time such as 2026-05-01T12:00 (UTC), or how long ago: 24h, 7d."
        ) from None
