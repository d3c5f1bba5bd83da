"""The only writers of jobs, grants, attempts and placements; one verb a function.

Lock order: jobs by id → placements → nodes by id → cards → quota usage.
"""

from .attempts import (
    Ended,
    Started,
    end_lost,
    end_placements,
    end_unborn,
    end_unstartable,
    lock_placements,
    start_placements,
)
from .checkpoints import Checkpoint, store_checkpoints
from .control import cancel, cancel_many, hold, release
from .grants import (
    ALIKE_SLICE,
    Given,
    Member,
    give_grants,
    pend,
    pend_alike,
    renew_leases,
    repair,
    stop_placements,
)
from .preemption import Evicted, preempt
from .submission import Submission, require_possible, submit, submit_many

__all__ = [
    "ALIKE_SLICE",
    "Checkpoint",
    "Ended",
    "Evicted",
    "Given",
    "Member",
    "Started",
    "Submission",
    "cancel",
    "cancel_many",
    "end_lost",
    "end_placements",
    "end_unborn",
    "end_unstartable",
    "give_grants",
    "hold",
    "lock_placements",
    "pend",
    "pend_alike",
    "preempt",
    "release",
    "renew_leases",
    "repair",
    "require_possible",
    "start_placements",
    "stop_placements",
    "store_checkpoints",
    "submit",
    "submit_many",
]
