"""When to try again: back-off with jitter, and what an end means for the retry count."""

from collections.abc import Mapping
from math import log
from random import Random

# A job whose nodes were lost or refused it this often is more likely the cause than the victim.
LOSS_LIMIT = 10

# End reasons that count against the job's own retries: the agent protocol's, and the portal's own `secret_missing`.
_FAILURES = frozenset({"time_limit", "memory_limit", "storage_limit", "pids_limit", "result_invalid", "secret_missing"})


def next_delay(policy: Mapping[str, float], failures: int, *, seed: int) -> float:
    """Seconds until the next try after `failures` failures (1 = the first one).

    `policy` has `delay` and `max_delay` in seconds, `factor` >= 1 and `jitter` from 0 to 1: the delay
    `delay * factor ** (failures - 1)`, capped, is moved by up to the jitter's part of it in either direction
    and capped again. The same seed and number of failures give the same delay.
    """
    if failures < 1:
        raise ValueError(f"failures must be at least 1, not {failures}")
    delay, factor, cap = float(policy["delay"]), float(policy["factor"]), float(policy["max_delay"])
    jitter = float(policy["jitter"])
    if delay < 0 or cap < 0 or factor < 1 or not 0 <= jitter <= 1:
        raise ValueError("a retry policy needs delay and max_delay >= 0, factor >= 1 and jitter from 0 to 1")
    if delay <= 0 or cap <= 0:
        return 0.0
    # Compared as logarithms, because a large number of failures would overflow the power.
    capped = log(delay) + (failures - 1) * log(factor) >= log(cap)
    base = cap if capped else delay * factor ** (failures - 1)
    # Seeded, so that a decision can be repeated; this spreads load and protects nothing.
    offset = Random(f"{seed}:{failures}").uniform(-jitter, jitter)
    return float(min(cap, base * (1 + offset)))


def classify_end(reason: str, exit_code: int | None) -> str:
    """What the end of a member means: `success`, `failure`, `lost` or `cancelled`.

    `lost` (the process vanished, or the node refused it) does not count against the job's retries; LOSS_LIMIT
    caps it. Raises ValueError for a reason that the agent protocol does not know.
    """
    if reason == "exited":
        return "success" if exit_code == 0 else "failure"
    if reason in _FAILURES:
        return "failure"
    if reason in ("lost", "refused"):
        return "lost"
    if reason == "stopped":
        return "cancelled"
    raise ValueError(f"unknown end reason {reason!r}")
