"""The only writers of logs, artifacts and bundles, and the intake of agents' reports."""

from .files import BundleUpload, store_artifact, store_bundle
from .intake import expire, hello, take_reports
from .logs import append_log

__all__ = ["BundleUpload", "append_log", "expire", "hello", "store_artifact", "store_bundle", "take_reports"]
