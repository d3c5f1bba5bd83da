"""The only writers of workflows, versions, runs and tasks besides the advance loop (`progress`).

Lock order: advisory lock of the workflow's name → workflow → run → tasks → jobs.
"""

from .approvals import answer_approval
from .backfills import (
    advance_backfills,
    cancel_backfill,
    create_backfill,
    pause_backfill,
    rerun_backfill,
    resume_backfill,
)
from .clear import clear, mark
from .datasets import create_dataset_runs, delete_dataset, update_dataset
from .deadlines import pass_due
from .definitions import PushResult, pause, push, resume
from .notes import note_run
from .runs import cancel_run, trigger
from .scheduled import create_due_runs, hasten, next_due
from .webhooks import create_webhook, delete_webhook, deliver

__all__ = [
    "PushResult",
    "advance_backfills",
    "answer_approval",
    "cancel_backfill",
    "cancel_run",
    "clear",
    "create_backfill",
    "create_dataset_runs",
    "create_due_runs",
    "create_webhook",
    "delete_dataset",
    "delete_webhook",
    "deliver",
    "hasten",
    "mark",
    "next_due",
    "note_run",
    "pass_due",
    "pause",
    "pause_backfill",
    "push",
    "rerun_backfill",
    "resume",
    "resume_backfill",
    "trigger",
    "update_dataset",
]
