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
from .slots import change_slot_pool, create_slot_pool, delete_slot_pool
from .state import delete_state, set_state, task_state
from .webhooks import create_webhook, delete_webhook, deliver

__all__ = [
    "PushResult",
    "advance_backfills",
    "answer_approval",
    "cancel_backfill",
    "cancel_run",
    "change_slot_pool",
    "clear",
    "create_backfill",
    "create_dataset_runs",
    "create_due_runs",
    "create_slot_pool",
    "create_webhook",
    "delete_dataset",
    "delete_slot_pool",
    "delete_state",
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
    "set_state",
    "task_state",
    "trigger",
    "update_dataset",
]
