"""The rules of the house that a machine can keep: which way imports run, and who may write what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Lower apps first; those in one row are siblings, which do not import each other.
LAYERS = [
    {"core"},
    {"events"},
    {"tenants"},
    {"fleet"},
    {"quotas"},
    {"jobs"},
    {"execution"},
    {"scheduling"},
    {"workflows", "services", "data"},
    {"adaptive", "negotiation", "notifications"},
    {"metrics"},
    {"console"},
]
# Frameworks that the pure core and the separate client package must do without.
DJANGO = {
    "django",
    "rest_framework",
    "channels",
    "celery",
    "drf_spectacular",
    "django_filters",
    "allauth",
    "redis",
}
MIGRATIONS = "migrations"


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if MIGRATIONS not in path.parts:
                yield path


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import, also those inside functions and TYPE_CHECKING."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            for name in node.names:
                yield node.lineno, f"{module}.{name.name}"


def rank(app: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if app in layer)


def forbidden(path: Path, module: str) -> str | None:
    """Why `path` may not import `module`, or None."""
    own, target = module_of(path).split("."), module.split(".")
    if own[0] == "apps" and len(own) > 1:
        if target[0] == "rmportal":
            return "apps do not import the project"
        if target[0] == "apps" and len(target) > 1 and target[1] != own[1]:
            if rank(target[1]) == rank(own[1]):
                return "siblings do not import each other"
            if rank(target[1]) > rank(own[1]):
                return "lower never imports higher"
    if own[0] == "engine" and target[0] in DJANGO | {"apps", "rmportal", "rmctl"}:
        return "the engine is pure"
    if own[0] == "rmctl" and target[0] in DJANGO | {"apps", "rmportal", "engine"}:
        return "rmctl stands alone"
    if own[0] != "tests" and target[0] == "tests":
        return "nothing imports its tests"
    return None


@pytest.mark.parametrize("folder", ["apps", "engine", "rmctl", "rmportal"])
def test_imports_run_one_way(folder: str) -> None:
    wrong = sorted(
        {
            f"{path.relative_to(ROOT)}:{line} imports {module}: {why}"
            for path in sources(folder)
            for line, module in imports(path)
            if (why := forbidden(path, module))
        }
    )
    assert not wrong, "\n".join(wrong)


def test_every_app_has_its_place() -> None:
    apps = {path.name for path in (ROOT / "apps").iterdir() if (path / "__init__.py").exists()}
    assert apps <= set().union(*LAYERS), f"not in LAYERS: {apps - set().union(*LAYERS)}"


@pytest.mark.parametrize(
    ("path", "module", "wrong"),
    [
        ("apps/core/api.py", "apps.tenants.models", True),
        ("apps/jobs/models.py", "apps.execution.models", True),
        ("apps/services/models.py", "apps.workflows.models", True),
        ("apps/jobs/models.py", "rmportal.settings", True),
        ("engine/quota.py", "django.db", True),
        ("rmctl/spec/job.py", "engine.quota", True),
        ("apps/console/views.py", "apps.core.api", False),
        ("apps/jobs/commands/submit.py", "engine.quota", False),
        ("rmportal/urls.py", "apps.console.urls", False),
    ],
)
def test_the_check_itself(path: str, module: str, wrong: bool) -> None:
    assert bool(forbidden(ROOT / path, module)) is wrong


def test_only_scheduling_and_loops_call_the_deciders() -> None:
    """Any app may read the engine's types; deciding is for the scheduler, `why` and the loops."""
    allowed = {"scheduling", "workflows", "adaptive", "jobs", "console"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("apps")
        for line, module in imports(path)
        if module.startswith(("engine.cycle", "engine.placement"))
        and path.parts[len(ROOT.parts) + 1] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def writes_state(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Writes to a column named `state`: `.update(state=…)`, `x.state = …`, and saves that name it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            names = {keyword.arg for keyword in node.keywords}
            if node.func.attr in ("update", "bulk_update", "update_or_create") and "state" in names:
                yield node.lineno, f".{node.func.attr}(state=…)"
            fields = [word.value for word in node.keywords if word.arg == "update_fields"]
            for value in fields:
                if isinstance(value, ast.List | ast.Tuple) and any(
                    isinstance(item, ast.Constant) and item.value == "state" for item in value.elts
                ):
                    yield node.lineno, f'.{node.func.attr}(update_fields=["state"])'
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr == "state" and not is_self(target):
                yield node.lineno, "x.state = …"


def is_self(target: ast.Attribute) -> bool:
    """Whether the attribute is an object's own, as of a small state holder that is no row."""
    return isinstance(target.value, ast.Name) and target.value.id == "self"


def test_states_change_only_by_guarded_transitions() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources("apps")
        if path.relative_to(ROOT).as_posix() != "apps/events/record.py"
        for line, what in writes_state(ast.parse(path.read_text()))
    ]
    assert not wrong, "Use apps.events.record:\n" + "\n".join(wrong)


def test_raw_sql_does_not_write_states_either() -> None:
    wrong = []
    for path in sources("apps"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = " ".join(node.value.upper().split())
                if "UPDATE " in text and " SET " in text and "STATE =" in text.split(" WHERE ")[0]:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_models_have_no_hidden_logic() -> None:
    """No overridden save or delete, and no model signals: what happens is what a command says."""
    signals = {"pre_save", "post_save", "pre_delete", "post_delete", "m2m_changed", "pre_init", "post_init"}
    wrong = []
    for path in sources("apps", "rmportal"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and path.name in ("models.py", "querysets.py"):
                wrong += [
                    f"{path.relative_to(ROOT)}:{item.lineno}: {node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, ast.FunctionDef) and item.name in ("save", "delete")
                ]
        wrong += [
            f"{path.relative_to(ROOT)}:{line}: {module}"
            for line, module in imports(path)
            if module.startswith("django.db.models.signals.") and module.rsplit(".", 1)[-1] in signals
        ]
    assert not wrong, "\n".join(wrong)


def test_commands_take_an_actor_by_keyword() -> None:
    """Public commands authorise: their first argument is the actor, and all are by keyword."""
    # Agents' and loops' own intake, which a credential or a lock has authorised.
    exempt = {"join_node", "nodes_seen", "sign_in", "append_log", "expire", "renew_leases", "stop_placements"}
    wrong = []
    for path in sources("apps"):
        if path.name != "commands.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith(("_", "checked_")):
                continue
            names = [argument.arg for argument in node.args.kwonlyargs]
            if node.name not in exempt and (node.args.args or names[:1] != ["actor"]):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "Job.objects.update(state='x')",
        "job.state = 'x'",
        "job.save(update_fields=['state', 'name'])",
        "Job.objects.filter(pk=1).update(name='x', state='y')",
    ],
)
def test_the_scan_itself(source: str) -> None:
    assert list(writes_state(ast.parse(source)))
