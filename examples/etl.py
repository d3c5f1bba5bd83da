"""ETL: the rows of a public trace become a small SQLite warehouse, partition by partition.

`partitions` reads which classes of service the pods of the trace (data/README.md) have, an instance of `clean` for
each class turns its rows into facts, and `load` writes all facts into one SQLite file, which is kept as an artifact.
`check` fails when a row was lost on the way.

    rmctl push examples/etl.py
    rmctl trigger etl --wait
"""

import csv
import gzip
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from rmctl import DAG, TaskFailed, artifact, param, task

DAY = 86400
SCHEMA = """
CREATE TABLE fact (
    day INTEGER NOT NULL, qos TEXT NOT NULL, phase TEXT NOT NULL,
    pods INTEGER NOT NULL CHECK (pods > 0), gpu_milli INTEGER NOT NULL CHECK (gpu_milli >= 0),
    PRIMARY KEY (day, qos, phase));
CREATE VIEW by_day AS
    SELECT day, sum(pods) AS pods, sum(gpu_milli) / 1000.0 AS gpus FROM fact GROUP BY day ORDER BY day;
"""


def rows_of(path):
    """The rows of the trace, whose file ships with the workflow."""
    with gzip.open(Path(__file__).parent / path, "rt", encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


@task
def partitions(pods):
    """How many rows each class of service has."""
    counts = Counter(row["qos"] for row in rows_of(pods))
    return {"classes": sorted(counts), "rows": counts}


@task(retries={"limit": 2, "delay": "1s"})
def clean(pods, qos):
    """The facts of one class of service: its pods, and the GPUs they ask for, by day and phase."""
    facts = {}
    for row in rows_of(pods):
        if row["qos"] == qos:
            fact = facts.setdefault((int(row["creation_time"]) // DAY, row["pod_phase"]), [0, 0])
            fact[0] += 1
            fact[1] += int(row["num_gpu"]) * int(row["gpu_milli"])
    print(f"{qos}: {sum(pods for pods, _ in facts.values())} rows made {len(facts)} facts")
    return [[day, qos, phase, *fact] for (day, phase), fact in sorted(facts.items())]


@task
def load(parts):
    """One SQLite file with all facts and a view of them by day."""
    with closing(sqlite3.connect(artifact("warehouse.sqlite"))) as database, database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO fact VALUES (?, ?, ?, ?, ?)", [fact for part in parts for fact in part])
        by_class = dict(database.execute("SELECT qos, sum(pods) FROM fact GROUP BY qos"))
        day, pods, gpus = database.execute("SELECT * FROM by_day ORDER BY pods DESC LIMIT 1").fetchone()
    return {"rows": by_class, "busiest": {"day": day, "pods": pods, "gpus": gpus}}


@task
def check(loaded, rows):
    """As many pods in the warehouse as there were rows."""
    if loaded["rows"] != rows:
        raise TaskFailed(f"the warehouse has {loaded['rows']}, the trace {rows}")
    busiest = loaded["busiest"]
    print(f"{sum(rows.values())} pods; the busiest day is {busiest['day']} with {busiest['pods']}")
    return {"pods": sum(rows.values()), "busiest": busiest}


with DAG(
    "etl",
    description="A public trace, cleaned in partitions, as a SQLite warehouse.",
    params={"pods": "data/pods_default.csv.gz"},
    files=["data/pods_default.csv.gz"],
) as dag:
    found = partitions(pods=param("pods"))
    parts = clean.partial(pods=param("pods")).expand(qos=found["classes"])
    check(loaded=load(parts=parts), rows=found["rows"])
