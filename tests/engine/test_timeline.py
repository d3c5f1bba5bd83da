"""Use over time: means of bins, what is outside of the period, and resources that there are none of."""

import pytest

from engine.outcomes import Ran
from engine.timeline import edges_of, last_end, used_over


def test_means_of_bins() -> None:
    runs = [
        Ran(1, 0.0, {"cpu": 2000}, [(-5.0, 5.0, "done")]),
        Ran(1, 0.0, {"cpu": 1000}, [(0.0, 2.0, "preempted"), (12.0, 40.0, "running")]),
    ]
    edges = edges_of(0.0, 20.0, 2)
    assert edges == [0.0, 10.0, 20.0]
    found = used_over(runs, edges, {"cpu": [40_000.0, 20_000.0], "gpu": [0.0, 0.0]})
    assert found["cpu"] == pytest.approx([(2000 * 5 + 1000 * 2) / 40_000, 1000 * 8 / 20_000])
    assert found["gpu"] == [0.0, 0.0]


def test_a_line_ends_where_nobody_runs_any_more() -> None:
    run = Ran(1, 0.0, {}, [(0.0, 300.0, "done")])
    assert last_end([run], 0.0, 1000.0, 60.0) == 300.0
    assert last_end([], 0.0, 1000.0, 60.0) == 60.0
    assert last_end([run], 0.0, 100.0, 60.0) == 100.0
