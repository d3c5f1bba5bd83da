"""Plotly figures as dictionaries: pure functions of numbers, tested without a browser.

Colours are the names of tokens (`var(--blue)`): the page resolves them, so a figure follows the theme.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
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


def use_over_time(at: Sequence[datetime], before: Sequence[float], after: Sequence[float]) -> Figure:
    """The part of a resource in use, in per cent, as it is and with changes; `at` are the edges of the parts."""
    times = [moment.isoformat() for moment in at]

    def step(parts: Sequence[float], name: str, colour: str, dash: str) -> dict[str, Any]:
        # The last value once more, so that its part is as wide as the others.
        values = [round(100 * part, 1) for part in (*parts, *parts[-1:])]
        trace = line(times, values, name, colour)
        trace["line"] |= {"shape": "hv", "dash": dash}
        return trace

    figure = _with_legend(layout(" %"))
    figure["yaxis"]["range"] = [0, 104]
    figure["xaxis"]["tickformat"] = "%H:%M\n%d %b" if at[-1] - at[0] > timedelta(hours=20) else "%H:%M:%S"
    was = step(before, "as it is", "var(--text-3)", "dot")
    will = step(after, "with the changes", "var(--accent)", "solid")
    will |= {"fill": "tozeroy", "fillcolor": "var(--accent-soft)"}
    figure["legend"]["y"] = 1.3
    figure["margin"]["t"] = 30
    return {"data": [will, was], "layout": figure}


def starts(moves: Sequence[tuple[str, datetime | None, datetime | None]]) -> Figure:
    """When jobs start, as it is (hollow) and with changes (full), a line for each: (name, before, after)."""
    names = [name for name, _, _ in moves]
    traces: list[dict[str, Any]] = []
    for name, before, after in moves:
        if before is not None and after is not None and before != after:
            colour = "var(--fill-red)" if after > before else "var(--fill-green)"
            ends = [before.isoformat(), after.isoformat()]
            traces.append(line(ends, [name, name], name, colour) | {"hoverinfo": "skip", "showlegend": False})

    def dots(label: str, found: list[tuple[str, datetime]], marker: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": label,
            "x": [moment.isoformat() for _, moment in found],
            "y": [name for name, _ in found],
            "marker": {"size": 9, **marker},
            "hovertemplate": "%{y}: %{x|%d %b %H:%M:%S}<extra>" + label + "</extra>",
        }

    was = [(name, moment) for name, moment, _ in moves if moment is not None]
    will = [(name, moment) for name, _, moment in moves if moment is not None]
    hollow = {"color": "var(--surface)", "line": {"color": "var(--text-3)", "width": 2}}
    traces.append(dots("as it is", was, hollow))
    traces.append(dots("with the changes", will, {"color": "var(--accent)"}))
    figure = _with_legend(layout("", hovermode="closest"))
    figure["yaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": names[::-1],
        "ticksuffix": "",
        "rangemode": "normal",
        "range": [-0.6, len(names) - 0.4],
        "tickmode": "linear",
        "tick0": 0,
        "dtick": 1,
    }
    figure["xaxis"] |= {"showgrid": True, "tickformat": "%H:%M:%S\n%d %b"}
    figure["margin"]["b"] = 40
    return {"data": traces if moves else [], "layout": figure}


def _with_legend(figure: dict[str, Any]) -> dict[str, Any]:
    legend = {"orientation": "h", "x": 0, "y": 1.14, "font": {"size": 11, "color": "var(--text-2)"}}
    return figure | {"showlegend": True, "legend": legend, "margin": {**figure["margin"], "t": 24}}
