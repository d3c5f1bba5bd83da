"""The only writers of workflows, versions, runs and tasks besides the advance loop (`progress`).

Lock order: advisory lock of the workflow's name → workflow → run → tasks → jobs.
"""

from .approvals import answer_approval
from .datasets import create_dataset_runs, delete_dataset, update_dataset
from .definitions import PushResult, pause, push, resume
from .runs import cancel_run, trigger
from .scheduled import create_due_runs, hasten, next_due
from .webhooks import create_webhook, delete_webhook, deliver

__all__ = [
    "PushResult",
    "answer_approval",
    "cancel_run",
    "create_dataset_runs",
    "create_due_runs",
    "create_webhook",
    "delete_dataset",
    "delete_webhook",
    "deliver",
    "hasten",
    "next_due",
    "pause",
    "push",
    "resume",
    "trigger",
    "update_dataset",
]
