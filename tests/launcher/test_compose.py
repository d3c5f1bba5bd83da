"""docker-compose.yml, as far as it can be checked without an engine: every name in it leads somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT

SERVICES = {"postgres", "redis", "migrate", "web", "worker", "beat", "agent"}
# Read by the portal's settings, the launcher or the agent; everything else in `environment` is the image's own.
SOURCES = ("rmportal", "apps", "rmctl")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """The variables of the example file."""
    lines = (ROOT / "deploy" / "compose.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_part_is_a_service(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        assert set(service) <= {
            *("image", "build", "restart", "environment", "volumes", "healthcheck", "command", "depends_on", "ports"),
            "user",
        }, name
        assert "image" in service


def test_dependencies_exist_and_can_be_met(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for the health of {needed}"
            elif how["condition"] == "service_completed_successfully":
                assert services[needed]["restart"] == "no", f"{name} waits for the end of {needed}"
            else:
                pytest.fail(f"{name}: unknown condition {how['condition']}")


def test_start_order_has_no_circle(compose: dict[str, Any]) -> None:
    left = {name: set(service.get("depends_on", {})) for name, service in compose["services"].items()}
    while left:
        free = {name for name, needed in left.items() if not needed & set(left)}
        assert free, f"these wait for each other: {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def test_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", [])]
    assert {source for source, _ in mounts} == set(compose["volumes"])
    assert all(target.startswith("/") for _, target in mounts)


def test_every_variable_is_in_the_example_and_the_other_way_round(example: dict[str, str]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert used == set(example)
    required = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert required == {"RMPORTAL_SECRET_KEY", "POSTGRES_PASSWORD"}
    # No secret stands in a file that is committed.
    assert all(example[name] == "" for name in required)


def test_the_portal_reads_every_variable_that_it_is_given(compose: dict[str, Any]) -> None:
    code = "".join(path.read_text() for top in SOURCES for path in (ROOT / top).rglob("*.py"))
    for name in ("web", "worker", "beat", "migrate"):
        for variable in compose["services"][name]["environment"]:
            assert f'"{variable}"' in code, f"{name}: nobody reads {variable}"


def test_build_files_and_everything_copied_exist(compose: dict[str, Any]) -> None:
    build = compose["services"]["web"]["build"]
    dockerfile = ROOT / build["context"] / build["dockerfile"]
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [line for line in dockerfile.read_text().splitlines() if line.startswith("COPY ")]
    assert copied
    for line in copied:
        *sources, _ = [part for part in shlex.split(line)[1:] if not part.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), line
            assert source not in ignored, line
    # A package that the image leaves out would be missed only when it runs.
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= {shlex.split(line)[1] for line in copied}


def test_commands_name_what_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert (ROOT / Path(services["agent"]["command"][0]).relative_to("/app")).is_file()
    command = services["migrate"]["command"][2]
    assert (ROOT / "rmportal" / "management" / "commands" / f"{command}.py").is_file()
    token = services["migrate"]["command"][-1]
    assert token == services["agent"]["command"][-1]
    for name in ("migrate", "agent"):
        assert any(token.startswith(mount.split(":")[1]) for mount in services[name]["volumes"])


def test_the_web_process_may_be_asked_by_the_agent(compose: dict[str, Any], example: dict[str, str]) -> None:
    host = re.fullmatch(r"http://([a-z]+):8080", compose["services"]["agent"]["command"][1])
    assert host is not None
    assert host[1] in compose["services"]
    assert host[1] in example["RMPORTAL_ALLOWED_HOSTS"].split(",")
