"""The only writers of workflows, versions, runs and tasks besides the advance loop (`progress`).

Lock order: advisory lock of the workflow's name → workflow → run → tasks → jobs.
"""

from .definitions import PushResult, pause, push, resume
from .runs import cancel_run, trigger
from .scheduled import create_due_runs, hasten, next_due

__all__ = [
    "PushResult",
    "cancel_run",
    "create_due_runs",
    "hasten",
    "next_due",
    "pause",
    "push",
    "resume",
    "trigger",
]
