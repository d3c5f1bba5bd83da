"""What lies ready on a node: told to the portal, and shown to tasks read-only."""

import json
from pathlib import Path

import msgspec
import pytest

from rmctl.agent import holdings
from rmctl.agent.containers import Runtime
from rmctl.agent.environment import View
from rmctl.agent.errors import AgentError
from rmctl.agent.journal import TaskFolder
from rmctl.agent.launch import wait
from rmctl.agent.protocol import Assignment, Holdings, Inventory, Isolation, decode_from_agent, encode
from rmctl.agent.sandbox import probe
from rmctl.names import canonical_image


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12", "docker.io/library/python:3.12"),
        ("docker.io/python:3.12", "docker.io/library/python:3.12"),
        ("team/tool@sha256:ab", "docker.io/team/tool@sha256:ab"),
        ("registry.example:5000/tool", "registry.example:5000/tool:latest"),
        ("localhost/tool:1", "localhost/tool:1"),
    ],
)
def test_images_are_known_by_their_full_names(name: str, full: str) -> None:
    assert canonical_image(name) == full


def test_datasets_are_declared_by_name_and_path(tmp_path: Path) -> None:
    assert holdings.declared([f"corpus={tmp_path}"]) == {"corpus": str(tmp_path)}
    for wrong in ("corpus", "=x", "a/b=/tmp", f"corpus={tmp_path}/gone"):
        with pytest.raises(AgentError, match="dataset: "):
            holdings.declared([wrong])
    with pytest.raises(AgentError, match="given twice"):
        holdings.declared([f"a={tmp_path}", f"a={tmp_path}"])


def test_a_size_is_that_of_all_files_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one").write_bytes(b"x" * 1000)
    (tmp_path / "sub" / "two").write_bytes(b"x" * 234)
    (tmp_path / "link").symlink_to("/usr")
    # A link to a folder is listed as one, and is not entered.
    assert holdings.size_of(str(tmp_path)) == 1234
    assert holdings.size_of(str(tmp_path / "one")) == 1000
    assert holdings.size_of(str(tmp_path / "gone")) == 0


def test_images_are_listed_as_the_runtime_says(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    lines = ("python 3.12 sha256:ab", "<none> <none> <none>", "team/tool 1 <none>")
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    assert holdings.list_images(Runtime("docker", str(program))) == [
        "docker.io/library/python:3.12",
        "docker.io/library/python@sha256:ab",
        "docker.io/team/tool:1",
    ]
    assert holdings.list_images(Runtime("docker", str(tmp_path / "gone"))) == []


async def test_the_portal_is_told_when_they_change(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    told: list[Holdings] = []
    store = holdings.Store(None, {"corpus": str(folder)})
    store.told = told.append
    await store.look()
    await store.look()
    assert told == [Holdings(datasets={"corpus": 0})]
    folder.rmdir()
    await store.look()
    assert told[1:] == [Holdings()]


def test_they_go_over_the_wire() -> None:
    found = Holdings(["a"], {"corpus": 5})
    assert decode_from_agent(encode(found)) == found
    inventory = Inventory("h", "os", "x86_64", "3.11", 1, 1, 1, holdings=found)
    assert msgspec.convert(msgspec.to_builtins(inventory), Inventory) == inventory
    plain = {name: value for name, value in msgspec.to_builtins(inventory).items() if name != "holdings"}
    assert msgspec.convert(plain, Inventory).holdings == Holdings()


def test_a_task_reads_its_datasets_and_cannot_write_them(root: Path) -> None:
    data = root / "holdings"
    data.mkdir(mode=0o711)
    corpus = root / "corpus"
    corpus.mkdir(mode=0o755)
    (corpus / "part").write_text("words")
    held = {"corpus": str(corpus), "other": "/usr"}
    box = probe(str(data), held)
    script = (
        "import json, os; at = json.loads(os.environ['RM_DATASETS']); assert list(at) == ['corpus'], at\n"
        "print(open(at['corpus'] + '/part').read())\n"
        "try:\n open(at['corpus'] + '/new', 'w')\n"
        "except OSError: print('read-only')\n"
    )
    assignment = Assignment(
        placement=1, token=1, job=1, attempt=1, name="t", tenant="t", command=["python", "-c", script],
        datasets=["corpus", "elsewhere"],
    )  # fmt: skip
    folder = TaskFolder(f"{data}/tasks", 1, 1)
    folder.create(assignment, box.folder_modes, box.owner(1))
    datasets = holdings.visible(held, assignment.datasets)
    wait(box.start(folder, assignment, [], Isolation(), datasets), 20.0)
    box.close()
    assert (folder.exit_status() or (1,))[0] == 0, Path(folder.log).read_text()
    said = Path(folder.log).read_text().splitlines()[-2:]
    expected = ["words", "read-only"] if box.filesystem != "none" else ["words"]
    assert said == expected, box.filesystem


def test_in_a_container_they_are_mounts(tmp_path: Path) -> None:
    assignment = Assignment(
        placement=1, token=1, job=1, attempt=1, name="t", tenant="t", command=["true"], image="a", datasets=["corpus"]
    )
    folder = TaskFolder(str(tmp_path), 1, 1)
    plan = Runtime("podman", "/usr/bin/podman").launch(folder, assignment, "c", {"corpus": "/srv/c"})
    assert "type=bind,source=/srv/c,target=/task/data/corpus,readonly" in plan.argv
    assert any(item.startswith("RM_DATASETS=") and json.loads(item.partition("=")[2]) == {"corpus": "/task/data/corpus"}
               for item in plan.argv)  # fmt: skip
    assert View.inside("", ["corpus"]).datasets == {"corpus": "/task/data/corpus"}
