"""The web process shows its supervisor that its event loop goes round."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.core import progress


async def test_the_file_is_touched_again_and_again(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    file = tmp_path / "web.progress"
    settings.PROGRESS_FILE = str(file)
    monkeypatch.setattr(progress, "PERIOD_SECONDS", 0.01)
    task = asyncio.create_task(progress.tell_progress())
    for _ in range(2):
        async with asyncio.timeout(5):
            while not file.exists():
                await asyncio.sleep(0.01)
        file.unlink()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
