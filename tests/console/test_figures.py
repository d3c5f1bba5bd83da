"""Figures, graphs and words, without a browser and without a database."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.console import figures, graphs, words
from apps.console.templatetags import console as tags

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SAMPLES = [
    {"at": 1_767_355_200.0, "cpu_percent": 12.34, "memory_total": 4 * 2**30, "memory_used": 2**30},
    {"at": 1_767_355_202.0, "memory_total": 4 * 2**30, "gpus": [[0, 50.0, 1, 40.0, 90.0], [1, 70.0, 1, 40.0, 90.0]]},
]


def test_a_sample_without_a_value_counts_as_zero() -> None:
    figure = figures.cpu(SAMPLES)
    assert figure["data"][0]["y"] == [12.3, 0.0]
    assert figure["data"][0]["x"] == ["2026-01-02T12:00:00+00:00", "2026-01-02T12:00:02+00:00"]
    assert figure["layout"]["yaxis"]["range"] == [0, 100]


def test_memory_is_drawn_below_its_total() -> None:
    figure = figures.memory(SAMPLES)
    assert figure["data"][0]["y"] == [1.0, 0.0]
    assert figure["layout"]["shapes"][0]["y0"] == 4.0
    assert "shapes" not in figures.memory([])["layout"]


def test_each_card_is_a_line_with_gaps() -> None:
    data = figures.gpus(SAMPLES)["data"]
    assert [(trace["name"], trace["y"]) for trace in data] == [("card 0", [None, 50.0]), ("card 1", [None, 70.0])]
    assert len({trace["line"]["color"] for trace in data}) == 2


def test_network_has_two_lines_in_mebibytes() -> None:
    sample = {"at": 0.0, "network_receive_bytes_per_second": 2**20, "network_send_bytes_per_second": 2**19}
    assert [trace["y"] for trace in figures.network([sample])["data"]] == [[1.0], [0.5]]


@pytest.mark.parametrize("make", [figures.cpu, figures.memory, figures.network, figures.gpus])
def test_colours_are_tokens_so_that_figures_follow_the_theme(make: object) -> None:
    def colours(value: object, key: str = "") -> list[str]:
        if isinstance(value, dict):
            return [found for name, item in value.items() for found in colours(item, name)]
        if isinstance(value, list):
            return [found for item in value for found in colours(item, key)]
        return [value] if isinstance(value, str) and key.endswith("color") else []

    found = colours(make(SAMPLES))  # type: ignore[operator]
    assert found
    assert all(colour.startswith("var(--") or colour == "rgba(0,0,0,0)" for colour in found)


DEFINITION = {
    "tasks": [
        {"id": "a", "kind": "python", "upstream": []},
        {"id": "b", "kind": "python", "upstream": ["a"], "arguments": {"x": {"result": "a"}, "y": {"param": "p"}},
         "map": {"over": {"m": {"result": "a", "key": "models"}}}},
        {"id": "c", "kind": "bash", "upstream": ["b"],
         "arguments": {"z": {"result": "a"}, "v": {"value": {"result": 1}}}},
    ]
}  # fmt: skip


def test_results_are_edges_once() -> None:
    assert graphs.edges(DEFINITION) == [["a", "b"], ["b", "c"], ["a", "c"]]


def test_a_version_has_no_states() -> None:
    graph = graphs.of_version(DEFINITION)
    assert [task["width"] for task in graph["tasks"]] == [None, 0, None]
    assert {task["state"] for task in graph["tasks"]} == {"none"}


def test_a_mapped_task_counts_its_instances() -> None:
    counts = {"succeeded": 3, "running": 1, "upstream_failed": 1, "cancelled": 1, "failed": 1}
    kind, begun = graphs.Kind("bash", mapped=True), NOW - timedelta(seconds=90)
    task = graphs.TaskView("b", "running", kind, width=7, counts=counts, began=begun.timestamp())
    drawn = graphs.of_run(graphs.edges(DEFINITION), {}, [task], {"b": "/panel"}, NOW)["tasks"][0]
    assert drawn["sub"] == "6 of 7, 3 failed · 1 min 30 s"
    assert drawn["counts"] == {"succeeded": 3, "running": 1, "failed": 3}
    assert drawn["panel"] == "/panel"
    waiting = graphs.TaskView("b", "waiting", kind)
    assert waiting.said(NOW) == "mapped, not expanded yet"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (9.99, "9.9 s"),
        (59.9, "59 s"),
        (61, "1 min 01 s"),
        (3661, "1 h 01 min"),
        (90000, "1 d 1 h"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**40 * 120, "120 TiB")]
)
def test_bytes(amount: int, text: str) -> None:
    assert words.bytes_(amount) == text


def test_amounts_in_the_units_of_people() -> None:
    assert [words.cores(value) for value in (0, 100, 1500, 2000, 2_500_000)] == ["0", "0.1", "1.5", "2", "2,500"]
    assert words.amount(2**30, "memory") == "1 GiB"
    assert words.amount(500, "gpu") == "0.5"
    assert words.sentence("cpu_model") == "CPU model"


@pytest.mark.parametrize(("seconds", "text"), [(2, "now"), (90, "1 min ago"), (-7300, "in 2 h"), (200_000, "2 d ago")])
def test_relative_times(seconds: int, text: str) -> None:
    assert words.relative(NOW - timedelta(seconds=seconds), NOW) == text


def test_bars_stay_inside_and_escape_what_they_are_told() -> None:
    assert 'width="100.0%"' in tags.bar(7, 5)
    assert 'width="0.0%"' in tags.bar(5, 0)
    assert "is-full" in tags.bar(99, 100, tone="pressure")
    assert "is-full" not in tags.bar(99, 100)
    assert "&lt;b&gt;" in tags.bar(1, 2, label="<b>")
    assert "&lt;script&gt;" in tags.status("<script>")
