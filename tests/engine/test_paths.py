"""The chain of tasks that decides when a run ends."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine import paths
from engine.dag import Graph
from engine.paths import Span
from tests.engine.test_dag import graphs

UPSTREAM = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"]}
DOWNSTREAM = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["e"], "e": []}
ORDER = ("a", "b", "c", "d", "e")


def test_the_path_of_a_run_that_has_ended_is_who_was_waited_for() -> None:
    spans = {"a": Span(0, 1), "b": Span(1, 9), "c": Span(1, 5), "d": Span(9, 12)}
    assert paths.finished(UPSTREAM, spans) == ["a", "b", "d"]
    # What never ran is no end of it; it is passed on the way to what made it be skipped.
    assert paths.finished(UPSTREAM, {**spans, "e": Span(None, 12.5)}) == ["a", "b", "d"]
    skipped = {"a": Span(0, 3), "b": Span(None, 3), "c": Span(None, 3), "d": Span(3, 4)}
    assert paths.finished(UPSTREAM, skipped)[::2] == ["a", "d"]
    assert paths.finished(UPSTREAM, {}) == []
    assert paths.finished(UPSTREAM, {"a": Span(None, 3)}) == []


def test_of_two_that_ended_together_it_is_the_one_that_began_first() -> None:
    spans = {"a": Span(0, 1), "b": Span(4, 9), "c": Span(1, 9), "d": Span(9, 12)}
    assert paths.finished(UPSTREAM, spans) == ["a", "c", "d"]


def test_the_path_of_a_run_that_goes_on_is_the_longest_that_is_left() -> None:
    spans = {"a": Span(0, 1), "b": Span(1, 9), "c": Span(1, None), "d": Span(None, None), "e": Span(None, None)}
    # b ended later, but what is left goes through c.
    left = {"c": 1.0, "d": 5.0, "e": 1.0}
    assert paths.running(ORDER, UPSTREAM, DOWNSTREAM, spans, left) == ["a", "c", "d", "e"]
    both = {"b": 0.5, "c": 1.0, "d": 5.0, "e": 0.0}
    assert paths.running(ORDER, UPSTREAM, DOWNSTREAM, {"a": Span(0, 1)}, both) == ["a", "c", "d", "e"]
    assert paths.running(ORDER, UPSTREAM, DOWNSTREAM, {}, dict.fromkeys(ORDER, 0.0)) == ["a", "b", "d", "e"]
    assert paths.running(ORDER, UPSTREAM, DOWNSTREAM, {"a": Span(0, 1)}, {}) == ["a"]


@given(graphs(), st.data())
def test_no_way_that_is_left_is_longer(graph: Graph, data: st.DataObject) -> None:
    done = {name for name in graph.order if data.draw(st.booleans(), label=name)}
    # Whatever stands before something that has ended has ended, too.
    for name in reversed(graph.order):
        if any(below in done for below in graph.downstream[name]):
            done.add(name)
    left = {name: float(data.draw(st.integers(0, 9))) for name in graph.order if name not in done}

    def longest(name: str) -> float:
        return left[name] + max((longest(below) for below in graph.downstream[name]), default=0.0)

    path = paths.ahead(graph.order, graph.downstream, left)
    assert sum(left[name] for name in path) == max((longest(name) for name in left), default=0.0)
    assert all(below in graph.downstream[name] for name, below in pairwise(path))
    if path:
        assert done.issuperset(graph.tasks[path[0]].upstream)  # It begins where the run is now.
        assert not graph.downstream[path[-1]]  # And goes to an end.
