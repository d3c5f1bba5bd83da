"""An id is given once: processes keep what never changes by its id alone, such as the plan of a version."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GIVES_AGAIN = re.compile(r"RESTART\s+IDENTITY|ALTER\s+SEQUENCE|\bsetval\b|sequence_reset|reset_sequences=True", re.I)
FLUSH = re.compile(r"""["']flush["'](?!.*reset_sequences=False)""")


def test_nothing_lets_ids_begin_anew() -> None:
    for folder in ("apps", "rmportal", "deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not GIVES_AGAIN.search(path.read_text()), path
    # `flush` lets them begin anew unless it is told not to; a test's process goes on with what it has kept.
    for path in (ROOT / "tests").rglob("test_*.py"):
        for line in path.read_text().splitlines():
            assert not FLUSH.search(line), f"{path}: {line.strip()}"
