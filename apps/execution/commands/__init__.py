"""The only writers of logs, artifacts, checkpoints and bundles, and the intake of agents' reports."""

from .checkpoints import forget_checkpoints, store_checkpoint
from .files import store_artifact, store_bundle
from .intake import expire, hello, take_reports
from .live import live_placement
from .logs import append_log

__all__ = [
    "append_log",
    "expire",
    "forget_checkpoints",
    "hello",
    "live_placement",
    "store_artifact",
    "store_bundle",
    "store_checkpoint",
    "take_reports",
]
