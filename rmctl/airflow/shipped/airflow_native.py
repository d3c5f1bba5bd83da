"""Functions in place of Airflow's own operators, for tasks that need no Airflow."""

import glob
import os
from datetime import UTC, datetime


def latest_only():
    """Whether this run is of the latest data interval; LatestOnlyOperator's question.

    The interval after this one is taken to be as long as it. A run without an interval, or with an empty one, counts as
    the latest.
    """
    start, end = (os.environ.get("RM_DATA_INTERVAL_" + name) for name in ("START", "END"))
    if not start or not end:
        return True
    begin, finish = datetime.fromisoformat(start), datetime.fromisoformat(end)
    if begin >= finish:
        return True
    return datetime.now(UTC) <= finish + (finish - begin)


def file_exists(path, recursive=False, connection=None):
    """Whether a file, or a folder with a file in it, is there; FileSensor's question.

    `path` may be a pattern. It lies in the folder that the `extra` of the connection names as `path`, by default `/`.
    """
    base = "/"
    if connection is not None:
        import rmctl

        base = rmctl.connection(connection).extra.get("path") or "/"
    for found in glob.glob(os.path.join(base, path), recursive=recursive):
        if os.path.isfile(found) or any(files for _, _, files in os.walk(found)):
            return True
    return False
