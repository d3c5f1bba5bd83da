"""A parameter sweep: one task for each value of a parameter, side by side, then the best of them.

Which smoothing factor forecasts tomorrow's arrivals best? Exponential smoothing says s(t) = a·y(t) + (1 − a)·s(t − 1)
and takes s(t) as the forecast of y(t + 1). Every instance of `score` tries one factor on the daily arrivals of a
public trace (data/README.md); `best` compares them and keeps the table as an artifact. The list is a parameter of
the run, so another sweep needs no other workflow.

    rmctl push examples/sweep.py
    rmctl trigger sweep --wait
    rmctl trigger sweep -p 'factors=[0.85, 0.9, 0.95]' --wait
"""

import csv
import gzip
from collections import Counter
from pathlib import Path

from rmctl import DAG, artifact, param, task

DAY = 86400


@task
def arrivals(pods):
    """Pods created on each day, from the day on which a hundredth of them had come."""
    with gzip.open(Path(__file__).parent / pods, "rt", encoding="utf-8", newline="") as stream:
        days = sorted(int(row["creation_time"]) // DAY for row in csv.DictReader(stream))
    counts = Counter(days)
    # The trace ends within its last day.
    return [counts[day] for day in range(days[len(days) // 100], days[-1])]


@task
def score(series, factor):
    """Mean absolute error of the forecasts with one factor, in pods a day."""
    smooth, errors = series[0], []
    for value in series[1:]:
        errors.append(abs(value - smooth))
        smooth = factor * value + (1 - factor) * smooth
    error = round(sum(errors) / len(errors), 2)
    print(f"factor {factor}: off by {error} pods a day")
    return {"factor": factor, "error": error}


@task
def best(scores):
    """The factor with the smallest error."""
    table = "".join(f"{row['factor']},{row['error']}\n" for row in scores)
    artifact("scores.csv").write_text(f"factor,error\n{table}")
    found = min(scores, key=lambda row: row["error"])
    print(f"best of {len(scores)}: factor {found['factor']}, off by {found['error']} pods a day")
    return found


with DAG(
    "sweep",
    description="Tries a list of smoothing factors side by side on the arrivals of a public trace.",
    params={
        "pods": "data/pods_default.csv.gz",
        "factors": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "minItems": 1,
            "default": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        },
    },
    files=["data/pods_default.csv.gz"],
) as dag:
    best(scores=score.partial(series=arrivals(pods=param("pods"))).expand(factor=param("factors")))
