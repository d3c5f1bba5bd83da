"""The sign of life of the web process, for the supervisor, which restarts a process that stands still."""

import asyncio
from pathlib import Path

from django.conf import settings

PERIOD_SECONDS = 1.0


async def tell_progress() -> None:
    """Show for ever that the event loop goes round; nothing where no supervisor has asked for it."""
    while settings.PROGRESS_FILE:
        Path(settings.PROGRESS_FILE).touch()  # noqa: ASYNC240  # Microseconds, in the local data folder.
        await asyncio.sleep(PERIOD_SECONDS)
