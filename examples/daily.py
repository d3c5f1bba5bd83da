"""A daily workflow and its past: one run for each day, made up for with a backfill.

Every run works on its own data interval and nothing else, so that a day can be run again, late or in any order, with
the same result. The trace (data/README.md) has no dates; its day 116 is taken as 1 June 2023. The timetable goes on
every midnight too; its runs are after the end of the trace, so they find nothing and skip.

    rmctl push examples/daily.py
    rmctl backfill create daily --from 2023-06-01 --to 2023-06-30 --dry-run
    rmctl backfill create daily --from 2023-06-01 --to 2023-06-30 --max-active-runs 8
    rmctl backfill list
"""

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

from rmctl import DAG, TaskSkipped, artifact, context, task

DAY = 86400
PODS = "data/pods_default.csv.gz"
FIRST_DAY = 116
FIRST_DATE = datetime(2023, 6, 1, tzinfo=UTC)


@task
def arrivals():
    """Pods that came within the data interval, and the GPUs that they asked for."""
    interval = context()
    first, last = (
        FIRST_DAY * DAY + (moment - FIRST_DATE).total_seconds()
        for moment in (interval.data_interval_start, interval.data_interval_end)
    )
    with gzip.open(Path(__file__).parent / PODS, "rt", encoding="utf-8", newline="") as stream:
        pods = [row for row in csv.DictReader(stream) if first <= int(row["creation_time"]) < last]
    if not pods:
        raise TaskSkipped("the trace has no pod in this interval")
    milli = sum(int(pod["num_gpu"]) * int(pod["gpu_milli"]) for pod in pods)
    return {"date": f"{interval.data_interval_start:%Y-%m-%d}", "pods": len(pods), "gpus": milli / 1000}


@task
def report(found):
    """One line for this day, as an artifact."""
    line = f"{found['date']},{found['pods']},{found['gpus']:.2f}\n"
    artifact(f"{found['date']}.csv").write_text(f"date,pods,gpus\n{line}")
    print(line, end="")


with DAG(
    "daily",
    description="What came on one day of a public trace.",
    schedule="@daily",
    start_date="2023-06-01",
    files=[PODS],
) as dag:
    report(found=arrivals())
