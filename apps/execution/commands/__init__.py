"""The only writers of logs, artifacts, checkpoints and bundles, and the intake of agents' reports."""

from .checkpoints import forget_checkpoints, live_placement, store_checkpoint
from .files import BundleUpload, store_artifact, store_bundle
from .intake import expire, hello, take_reports
from .logs import append_log

__all__ = [
    "BundleUpload",
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
