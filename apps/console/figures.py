"""Plotly figures as dictionaries: pure functions of numbers, tested without a browser.

Colours are the names of tokens (`var(--blue)`): the page resolves them, so a figure follows the theme.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Figure = dict[str, Any]
Sample = Mapping[str, Any]

GIB = 2**30
MIB = 2**20
# The line that follows the pointer.
SPIKE = {"spikecolor": "var(--line-strong)", "spikethickness": 1, "spikedash": "solid"}


def layout(unit: str, **changes: Any) -> dict[str, Any]:
    """What every chart has: no frame, quiet grid, one unit on the left."""
    axis = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "tickfont": {"size": 11, "color": "var(--text-2)"},
        "fixedrange": True,
    }
    return {
        "margin": {"l": 44, "r": 12, "t": 8, "b": 28},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "Inter, system-ui, sans-serif", "size": 12, "color": "var(--text-2)"},
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "var(--raised)",
            "bordercolor": "var(--line-strong)",
            "font": {"color": "var(--text)", "size": 12},
        },
        "showlegend": False,
        "xaxis": {**axis, **SPIKE, "showgrid": False, "type": "date", "nticks": 5, "tickformat": "%H:%M:%S"},
        "yaxis": {**axis, "ticksuffix": unit, "rangemode": "tozero", "nticks": 5, "automargin": True},
        **changes,
    }


def line(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, *, fill: bool = False) -> dict[str, Any]:
    """One series; filled down to zero when it is the only one."""
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 1.75, "shape": "linear"},
    }
    if fill:
        trace |= {"fill": "tozeroy", "fillcolor": "var(--accent-soft)"}
    return trace


def _times(samples: Sequence[Sample]) -> list[str]:
    return [datetime.fromtimestamp(sample["at"], tz=UTC).isoformat() for sample in samples]


def cpu(samples: Sequence[Sample]) -> Figure:
    """Busy cpu of a node in per cent; a sample leaves out what is zero."""
    values = [round(sample.get("cpu_percent", 0.0), 1) for sample in samples]
    figure = layout(" %")
    figure["yaxis"]["range"] = [0, 100]
    return {"data": [line(_times(samples), values, "cpu", "var(--accent)", fill=True)], "layout": figure}


def memory(samples: Sequence[Sample]) -> Figure:
    """Used memory of a node in GiB, below its total."""
    times = _times(samples)
    used = [round(sample.get("memory_used", 0) / GIB, 2) for sample in samples]
    figure = layout(" GiB")
    total = max((sample.get("memory_total", 0) for sample in samples), default=0) / GIB
    if total:
        figure["yaxis"]["range"] = [0, round(total * 1.05, 2)]
        figure["shapes"] = [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": total,
                "y1": total,
                "line": {"color": "var(--field-line)", "width": 1, "dash": "dot"},
            }
        ]
    return {"data": [line(times, used, "used", "var(--accent)", fill=True)], "layout": figure}


def network(samples: Sequence[Sample]) -> Figure:
    """What a node receives and sends in MiB a second."""
    times = _times(samples)
    received = [round(sample.get("network_receive_bytes_per_second", 0.0) / MIB, 3) for sample in samples]
    sent = [round(sample.get("network_send_bytes_per_second", 0.0) / MIB, 3) for sample in samples]
    data = [line(times, received, "received", "var(--blue)"), line(times, sent, "sent", "var(--orange)")]
    return {"data": data, "layout": _with_legend(layout(" MiB/s"))}


def gpus(samples: Sequence[Sample]) -> Figure:
    """Utilisation of each card in per cent."""
    colours = ("var(--accent)", "var(--blue)", "var(--green)", "var(--orange)", "var(--violet)", "var(--red)")
    times = _times(samples)
    indexes = sorted({card[0] for sample in samples for card in sample.get("gpus", ())})
    data = []
    for position, index in enumerate(indexes):
        # A card is (index, utilisation, memory used, temperature, power).
        values = [next((card[1] for card in sample.get("gpus", ()) if card[0] == index), None) for sample in samples]
        data.append(line(times, values, f"card {index}", colours[position % len(colours)]))
    figure = _with_legend(layout(" %"))
    figure["yaxis"]["range"] = [0, 100]
    return {"data": data, "layout": figure}


def _with_legend(figure: dict[str, Any]) -> dict[str, Any]:
    legend = {"orientation": "h", "x": 0, "y": 1.14, "font": {"size": 11, "color": "var(--text-2)"}}
    return figure | {"showlegend": True, "legend": legend, "margin": {**figure["margin"], "t": 24}}
