"""How the suite is divided among the workers of a parallel run (`pytest -n 2`)."""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# One portal for all of these.
SHARED = ("tests/e2e/",)
# What takes longest begins first, so that no worker is left alone with it at the end.
LONG = ("tests/e2e/", "tests/launcher/", "tests/agent/", "tests/concurrency/")


class FilesAtATime(LoadScopeScheduling):
    """A file goes to one worker as a whole, as its tests share what they set up; what shares a portal goes together."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        # The order of the collection, not files of many tests first: the longest tests stand in small files.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return next((folder for folder in SHARED if file.startswith(folder)), file)


def long_ones_first(items: list[Any]) -> None:
    """Order the collected tests for the workers; tests of a file keep theirs."""

    def place(item: Any) -> int:
        return next((number for number, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG))

    items.sort(key=place)
