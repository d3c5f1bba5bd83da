"""What an agent finds of cards and fabrics, on made-up machines."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmctl.agent import inventory
from rmctl.agent.inventory import Hardware
from rmctl.agent.protocol import Isolation


class Refused(Exception):
    """NVML's error."""


def driver(*cards: tuple[tuple[int, int], list[int]]) -> Any:
    """NVML with cards of (compute capability, state of each link)."""

    def link(card: int, number: int) -> int:
        if number >= len(cards[card][1]):
            raise Refused
        return cards[card][1][number]

    return SimpleNamespace(
        NVMLError=Refused,
        NVML_NVLINK_MAX_LINKS=18,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=2**30),
        nvmlDeviceGetName=lambda card: b"A100",
        nvmlDeviceGetUUID=lambda card: f"GPU-{card}",
        nvmlDeviceGetCudaComputeCapability=lambda card: list(cards[card][0]),
        nvmlSystemGetDriverVersion=lambda: b"535.104.05",
        nvmlDeviceGetNvLinkState=link,
    )


@pytest.mark.parametrize(
    ("nvml", "compute", "version", "links"),
    [
        (None, "", "", []),
        (driver(), "", "", []),
        (driver(((8, 0), [0, 1]), ((8, 0), [1])), "8.0", "535.104.05", ["nvlink"]),
        (driver(((10, 0), [1]), ((9, 0), [])), "9.0", "535.104.05", []),
        (driver(((7, 5), [0, 0])), "7.5", "535.104.05", []),
    ],
    ids=["no driver", "no card", "linked", "one without links", "links that are down"],
)
def test_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nvml: Any, compute: str, version: str, links: list[str]
) -> None:
    monkeypatch.setattr(inventory, "_nvml", lambda: nvml)
    monkeypatch.setattr(inventory, "_fabrics", list)
    found = Hardware(str(tmp_path)).inventory(["process"], Isolation())
    assert (found.gpu_compute, found.gpu_driver, found.interconnects) == (compute, version, links)


def test_packages_of_the_agents_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Hardware(str(tmp_path)).inventory(["process"], Isolation())
    assert {"msgspec", "pytest-django"} <= set(found.packages)
    for name in ("Some_Pkg-1.0.dist-info", "old.thing-2.egg-info", "plain", "some_pkg", "x.json-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "missing"), ""])
    assert inventory.packages() == ["old-thing", "some-pkg"]


def test_fabrics_whose_ports_are_up(tmp_path: Path) -> None:
    ports = [("mlx5_0", "4: ACTIVE", "InfiniBand"), ("mlx5_1", "1: DOWN", "Ethernet"), ("odd", "4: ACTIVE", "Other")]
    for device, state, layer in ports:
        port = tmp_path / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "link_layer").write_text(f"{layer}\n")
    (tmp_path / "broken" / "ports" / "1").mkdir(parents=True)
    assert inventory._fabrics(tmp_path) == ["infiniband"]
    (tmp_path / "mlx5_1" / "ports" / "1" / "state").write_text("4: ACTIVE\n")
    assert inventory._fabrics(tmp_path) == ["infiniband", "roce"]
    assert inventory._fabrics(tmp_path / "none") == []
