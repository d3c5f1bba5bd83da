"""How much GPU does a real cluster have, and how much is asked of it?

Checks the public Alibaba GPU trace (data/README.md), works out the demand for each GPU model in a task of its
own, joins the parts and writes a report with figures.

    rmctl push examples/gpu_trace.py
    rmctl trigger gpu_trace --wait
"""

import csv
import gzip
import html
from collections import Counter
from pathlib import Path

from rmctl import DAG, artifact, param, task

HERE = Path(__file__).parent
DAY = 86400

# Column → (lowest, highest) of a whole number, or None for text.
NODE_COLUMNS = {
    "sn": None,
    "cpu_milli": (1000, 1_000_000),
    "memory_mib": (1024, 16 * 2**20),
    "gpu": (1, 16),
    "model": None,
}
POD_COLUMNS = {
    "name": None,
    "cpu_milli": (0, 1_000_000),
    "memory_mib": (0, 16 * 2**20),
    "num_gpu": (0, 16),
    "gpu_milli": (0, 1000),
    "gpu_spec": None,
    "qos": None,
    "pod_phase": None,
    "creation_time": (0, 2**40),
    "deletion_time": (0, 2**40),
    "scheduled_time": (-1, 2**40),
}
KINDS = {"cpu": "CPU only", "share": "share of a GPU", "single": "one GPU", "multi": "several GPUs"}


def rows_of(path):
    """The rows of a CSV file, compressed or not."""
    opened = gzip.open if path.endswith(".gz") else open
    with opened(HERE / path, "rt", encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def faults_of(path, columns, key):
    """What is wrong with a table, line by line."""
    seen = set()
    for line, row in enumerate(rows_of(path), start=2):
        if set(row) != set(columns):
            yield f"{path}: the columns are {', '.join(map(str, row))}; expected {', '.join(columns)}"
            return
        if row[key] in seen:
            yield f"{path}:{line}: {key} {row[key]} is there twice"
        seen.add(row[key])
        for column, bounds in columns.items():
            text = row[column]
            if bounds is None or (column == "scheduled_time" and not text):
                continue
            if not text.removeprefix("-").isdecimal():
                yield f"{path}:{line}: {column} is {text!r}, not a whole number"
            elif not bounds[0] <= int(text) <= bounds[1]:
                yield f"{path}:{line}: {column} is {text}, not within {bounds[0]} and {bounds[1]}"
    if not seen:
        yield f"{path}: there are no rows"


def kind_of(pod):
    cards, milli = int(pod["num_gpu"]), int(pod["gpu_milli"])
    if cards == 0:
        return "cpu"
    return "multi" if cards > 1 else "single" if milli == 1000 else "share"


def gpus_of(pod):
    """Cards asked for, shares as fractions."""
    return int(pod["num_gpu"]) * int(pod["gpu_milli"]) / 1000


@task
def check(nodes, pods):
    """Refuse tables that the other tasks could not trust; count what is in them."""
    faults = [*faults_of(nodes, NODE_COLUMNS, "sn"), *faults_of(pods, POD_COLUMNS, "name")]
    if faults:
        shown = "\n".join(faults[:20])
        raise ValueError(f"{len(faults)} faults in the trace:\n{shown}")
    models = Counter()
    for node in rows_of(nodes):
        models[node["model"]] += int(node["gpu"])
    kinds = Counter(kind_of(pod) for pod in rows_of(pods))
    print(f"{sum(models.values())} GPUs of {len(models)} models, {sum(kinds.values())} pods: no faults")
    return {
        "models": [model for model, _ in models.most_common()],
        "capacity": dict(models),
        "nodes": sum(1 for _ in rows_of(nodes)),
        "pods": sum(kinds.values()),
        "kinds": dict(kinds),
    }


@task
def demand(model, nodes, pods, capacity):
    """What is asked of one model: pods that fit its nodes, spread over all models that they fit."""
    shapes = {}
    for node in rows_of(nodes):
        shape = (int(node["gpu"]), int(node["cpu_milli"]), int(node["memory_mib"]))
        shapes.setdefault(node["model"], Counter())[shape] += 1

    def fits(pod, name):
        if pod["gpu_spec"] and name not in pod["gpu_spec"].split("|"):
            return False
        wanted = (int(pod["num_gpu"]), int(pod["cpu_milli"]), int(pod["memory_mib"]))
        return any(all(w <= h for w, h in zip(wanted, shape, strict=True)) for shape in shapes[name])

    fitting, too_large, asked, expected = Counter(), 0, 0.0, 0.0
    for pod in rows_of(pods):
        if not int(pod["num_gpu"]):
            continue
        if not fits(pod, model):
            too_large += 1
            continue
        fitting[kind_of(pod)] += 1
        asked += gpus_of(pod)
        choices = sum(capacity[name] for name in shapes if fits(pod, name))
        expected += gpus_of(pod) * capacity[model] / choices
    print(
        f"{model}: {capacity[model]} GPUs, {sum(fitting.values())} pods fit, {expected:.0f} GPUs asked of it"
    )
    return {
        "model": model,
        "nodes": sum(shapes[model].values()),
        "gpus": capacity[model],
        "pods": sum(fitting.values()),
        "too_large": too_large,
        "kinds": dict(fitting),
        "asked": round(asked, 2),
        "expected": round(expected, 2),
    }


@task
def join(rows, checked):
    """The parts side by side, with totals."""
    rows = sorted(rows, key=lambda row: -row["gpus"])
    missing = set(checked["models"]) - {row["model"] for row in rows}
    if missing:
        raise ValueError(f"no demand was worked out for {', '.join(sorted(missing))}")
    gpus, expected = sum(row["gpus"] for row in rows), sum(row["expected"] for row in rows)
    return {
        "rows": rows,
        "gpus": gpus,
        "expected": round(expected, 1),
        "load": round(expected / gpus, 4),
        **checked,
    }


@task(resources={"cpu": "500m", "memory": "768Mi"}, time_limit="5m")
def report(summary, pods):
    """One HTML file with everything in it, figures included."""
    import plotly.io

    table = list(rows_of(pods))
    figures = [
        (
            "Capacity and demand by GPU model",
            "Demand is spread over the models that a pod fits on, by their capacity.",
            by_model(summary),
        ),
        (
            "How much of a card pods want",
            "Single-GPU pods by the thousandths of the card they ask for.",
            by_share(table),
        ),
        ("Arrivals", "Pods created per day of the trace, by what they ask for.", arrivals(table)),
        (
            "GPUs asked for, summed up as pods arrive",
            "If no pod ever left: how the workload fills the cluster.",
            accumulated(table, summary["gpus"]),
        ),
    ]
    parts = []
    for number, (title, text, figure) in enumerate(figures):
        # plotly.js goes into the file once: the report needs no network and no server.
        drawn = plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=number == 0,
            config={"displaylogo": False, "responsive": True},
        )
        parts.append(f"<section><h2>{title}</h2><p>{text}</p>{drawn}</section>")
    path = artifact("report.html")
    path.write_text(page(summary, table, parts), encoding="utf-8")
    print(f"report.html: {path.stat().st_size / 1e6:.1f} MB")
    return {"artifact": "report.html", "gpus": summary["gpus"], "load": summary["load"]}


CAPACITY, DEMAND = "#b6c2d2", "#4f46e5"
COLOURS = {"cpu": "#b6c2d2", "share": "#4f46e5", "single": "#0ea5e9", "multi": "#f59e0b"}


def figure_of(*traces, **layout):
    """A figure in the report's style."""
    base = {
        "height": 360,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#334155"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.12, "x": 0},
        "hovermode": "x unified",
        "bargap": 0.25,
    }
    axes = {"gridcolor": "#e2e8f0", "zerolinecolor": "#cbd5e1", "automargin": True}
    for axis in ("xaxis", "yaxis"):
        layout[axis] = {**axes, **layout.get(axis, {})}
    return {"data": list(traces), "layout": {**base, **layout}}


def by_model(summary):
    models = [row["model"] for row in summary["rows"]]
    return figure_of(
        {
            "type": "bar",
            "name": "GPUs there",
            "x": models,
            "y": [row["gpus"] for row in summary["rows"]],
            "marker": {"color": CAPACITY},
        },
        {
            "type": "bar",
            "name": "GPUs asked for",
            "x": models,
            "y": [row["expected"] for row in summary["rows"]],
            "text": [f"{row['expected'] / row['gpus']:.0%}" for row in summary["rows"]],
            "textposition": "outside",
            "marker": {"color": DEMAND},
        },
        barmode="group",
        yaxis={"title": {"text": "GPUs"}},
    )


def by_share(table):
    shares = Counter(int(pod["gpu_milli"]) for pod in table if int(pod["num_gpu"]) == 1)
    whole = shares.pop(1000, 0)
    x = sorted(shares)
    return figure_of(
        {
            "type": "bar",
            "name": "shares",
            "x": x,
            "y": [shares[value] for value in x],
            "width": 14,
            "marker": {"color": DEMAND},
        },
        {
            "type": "bar",
            "name": "whole cards",
            "x": [1000],
            "y": [whole],
            "width": 14,
            "marker": {"color": "#0ea5e9"},
        },
        xaxis={"title": {"text": "thousandths of a card"}, "range": [0, 1030]},
        yaxis={"title": {"text": "pods"}},
    )


def first_busy_day(table):
    """The day from which on arrivals are dense; a hundredth of the pods is older."""
    days = sorted(int(pod["creation_time"]) // DAY for pod in table)
    return days[len(days) // 100]


def arrivals(table):
    first = first_busy_day(table)
    counts = {kind: Counter() for kind in KINDS}
    for pod in table:
        counts[kind_of(pod)][int(pod["creation_time"]) // DAY] += 1
    days = list(range(first, max(max(count) for count in counts.values() if count) + 1))
    return figure_of(
        *(
            {
                "type": "bar",
                "name": name,
                "x": days,
                "y": [counts[kind][day] for day in days],
                "marker": {"color": COLOURS[kind]},
            }
            for kind, name in KINDS.items()
        ),
        barmode="stack",
        xaxis={"title": {"text": "day of the trace"}},
        yaxis={"title": {"text": "pods a day"}},
    )


def accumulated(table, capacity):
    """GPUs asked for up to each day if no pod ever left, by what the pods ask for."""
    days = Counter()
    for pod in table:
        days[kind_of(pod), int(pod["creation_time"]) // DAY] += gpus_of(pod)
    span = list(range(first_busy_day(table), max(day for _, day in days) + 1))
    traces = []
    for kind in ("single", "share", "multi"):
        total, y = sum(gpus for (k, day), gpus in days.items() if k == kind and day < span[0]), []
        for day in span:
            total += days[kind, day]
            y.append(round(total, 2))
        line = {"color": COLOURS[kind], "width": 1}
        traces.append(
            {"type": "scatter", "name": KINDS[kind], "x": span, "y": y, "stackgroup": "gpus", "line": line}
        )
    ends = {"x": [span[0], span[-1]], "y": [capacity, capacity]}
    line = {"color": "#475569", "width": 1.5, "dash": "dash"}
    return figure_of(
        *traces,
        {"type": "scatter", "mode": "lines", "name": "GPUs there", **ends, "line": line},
        xaxis={"title": {"text": "day of the trace"}},
        yaxis={"title": {"text": "GPUs"}, "rangemode": "tozero"},
    )


STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f5f9; color: #0f172a; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.02em; }
h2 { font-size: 17px; margin: 0; }
p { margin: 2px 0 12px; color: #64748b; }
.lead { font-size: 17px; max-width: 760px; margin-bottom: 28px; }
.kpis { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin-bottom: 20px; }
.kpi, section { background: #fff; border: 1px solid #e2e8f0; border-radius: 12px; }
.kpi { padding: 16px 18px; }
.kpi b { display: block; font-size: 26px; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.kpi span { color: #64748b; font-size: 13px; }
section { padding: 20px 22px 12px; margin-bottom: 16px; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: #64748b; font-size: 13px; }
th, td { padding: 7px 10px; border-bottom: 1px solid #e2e8f0; }
td { text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
footer { color: #64748b; font-size: 13px; margin-top: 24px; }
"""


def page(summary, table, sections):
    """The whole document."""
    waiting = sum(1 for pod in table if pod["pod_phase"] == "Pending")
    sharing = summary["kinds"].get("share", 0) / (summary["pods"] - summary["kinds"].get("cpu", 0))
    kpis = [
        (f"{summary['gpus']:,}", f"GPUs on {summary['nodes']:,} nodes"),
        (f"{len(summary['models'])}", "GPU models"),
        (f"{summary['pods']:,}", "pods"),
        (f"{summary['load']:.1%}", "of the GPUs asked for"),
        (f"{sharing:.0%}", "of GPU pods want a share"),
        (f"{waiting:,}", "pods not placed at the end"),
    ]
    tightest = max(summary["rows"], key=lambda row: row["expected"] / row["gpus"])
    lead = (
        f"All pods of the trace together ask for {summary['expected']:,.0f} GPUs, {sharing:.0%} of the "
        f"GPU pods for a part of one card; {waiting:,} pods had not been placed when it ended. The tightest "
        f"model is {tightest['model']}: {tightest['expected'] / tightest['gpus']:.0%} of its cards asked for."
    )
    cells = "".join(f'<div class="kpi"><b>{value}</b><span>{text}</span></div>' for value, text in kpis)
    lines = "".join(
        f"<tr><td>{html.escape(row['model'])}</td><td>{row['nodes']:,}</td><td>{row['gpus']:,}</td>"
        f"<td>{row['pods']:,}</td><td>{row['too_large']:,}</td><td>{row['expected']:,.0f}</td>"
        f"<td>{row['expected'] / row['gpus']:.0%}</td></tr>"
        for row in summary["rows"]
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>GPU capacity and demand</title><style>{STYLE}</style></head>
<body><main>
<h1>{summary["gpus"]:,} GPUs, {summary["load"]:.0%} of them asked for</h1>
<p class="lead">{html.escape(lead)}</p>
<div class="kpis">{cells}</div>
{"".join(sections)}
<section><h2>By model</h2><table>
<tr><th>model</th><th>nodes</th><th>GPUs</th><th>pods that fit</th><th>too large</th>
<th>asked of it</th><th>load</th></tr>
{lines}</table></section>
<footer>Data: Alibaba cluster-trace-gpu-v2023, used in “Beware of Fragmentation” (USENIX ATC 2023).
Demand counts the pods of all times together.</footer>
</main></body></html>
"""


with DAG(
    "gpu_trace",
    description="Capacity of and demand for the GPUs of a public cluster trace, model by model.",
    params={"nodes": "data/nodes.csv", "pods": "data/pods_default.csv.gz"},
    files=["data/*.csv*"],
    defaults={"resources": {"cpu": "200m", "memory": "256Mi"}, "retries": 1, "time_limit": "2m"},
) as dag:
    checked = check(nodes=param("nodes"), pods=param("pods"))
    demands = demand.partial(nodes=param("nodes"), pods=param("pods"), capacity=checked["capacity"]).expand(
        model=checked["models"]
    )
    joined = join(rows=demands, checked=checked)
    report(summary=joined, pods=param("pods"))
