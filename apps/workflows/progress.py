"""Decide: one run during a pass, from what ended to what starts. It reads rows through a loader, writes nothing.

Tasks end (`ending`) and the engine's counters say what follows (`following`): tasks that are ready get a job, empty
ones and those that need none (nothing to map over, an argument that cannot be resolved) end at once (`starting`), and
so on until nothing more ends. What the steps share is in `run_rows`.
"""

from .run_rows import Start
from .starting import Starting

__all__ = ["Progress", "Start"]


class Progress(Starting):
    """A run, the rows of it that this pass touches, and what becomes of them."""
