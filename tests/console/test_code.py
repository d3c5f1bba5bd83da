"""The code that a workflow runs, and what changed in it from version to version."""

from typing import Any

from apps.execution import commands as execution
from tests.apps.execution.test_sources import packed
from tests.personas import World

from . import large
from .conftest import People


def pushed(world: World, files: dict[str, bytes]) -> int:
    """A version of a workflow whose bundle has these files; returns the workflow's id."""
    actor = world.actor("member")
    bundle = execution.store_bundle(actor=actor, tenant=world.vision, chunks=[packed(files)])
    task = {"id": "fit", "kind": "python", "file": "train.py", "function": "fit", "upstream": []}
    definition: dict[str, Any] = {"schema": 1, "name": "train", "bundle": bundle.sha256, "tasks": [task]}
    return large.pushed(actor, world.vision, definition).pk


def test_the_files_of_a_version(world: World, people: People) -> None:
    files = {"a.py": b"A = 1\n", "train.py": b"def fit():\n    return 1 < 2\n", "data.bin": b"\0"}
    base = f"/workflows/{pushed(world, files)}/code/"
    page = people.member.get(base).content.decode()
    assert "return 1 &lt; 2" in page  # The file that the first task runs.
    assert "A = 1" not in page
    assert "A = 1" in people.member.get(base, {"file": "a.py"}).content.decode()
    assert "data.bin is no text" in people.member.get(base, {"file": "data.bin"}).content.decode()
    assert people.member.get(base, {"file": "../secret_key"}).status_code == 404
    assert people.stranger.get(base, {"file": "a.py"}).status_code == 404


def test_what_changed_in_the_code(world: World, people: People) -> None:
    pushed(world, {"train.py": b"def fit():\n    return 1\n", "old.py": b"x\n", "same.py": b"y\n", "d.bin": b"\0a"})
    changed = {"train.py": b"def fit():\n    return 2\n", "new.py": b"z\n", "same.py": b"y\n", "d.bin": b"\0bc"}
    page = people.member.get(f"/workflows/{pushed(world, changed)}/code/?version=2&against=1").content.decode()
    assert page.count('data-testid="file-diff"') == 4
    assert "same.py" not in page
    assert '<span class="diff__row diff__row--del">-    return 1</span>' in page
    assert '<span class="diff__row diff__row--add">+    return 2</span>' in page
    assert '<span class="mark" data-mark="removed">removed</span>' in page


def test_without_a_bundle_there_is_no_code(world: World, people: People) -> None:
    workflow = large.pushed(world.actor("member"), world.vision, large.small_definition("etl"))
    assert 'data-testid="source"' not in people.member.get(f"/workflows/{workflow.pk}/code/").content.decode()
