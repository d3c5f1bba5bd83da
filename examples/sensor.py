"""A sensor: wait for a file that somebody else brings, without holding a process meanwhile.

Every poke is a short task of its own; between two of them there is only a row with a due time. Pokes that find
nothing follow each other ever more slowly. `arrived` hands on what it has seen, so nobody asks twice.

    python examples/bucket.py 8099                                  # in a terminal of its own
    rmctl push examples/sensor.py
    rmctl trigger sensor                                            # it waits
    curl -T examples/data/nodes.csv http://127.0.0.1:8099/nodes.csv # it goes on
"""

import csv
import urllib.error
import urllib.request
from collections import Counter

from rmctl import DAG, Poked, param, task


@task.sensor(poke_interval="0.5s", exponential_backoff=1.5, max_wait="1m", timeout="1h")
def arrived(bucket, name):
    """Whether the bucket has the file; its address and size are the result."""
    try:
        with urllib.request.urlopen(f"{bucket}/{name}", timeout=10) as answer:
            size = len(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        print(f"{bucket} has no {name} yet")
        return False
    return Poked(True, {"url": f"{bucket}/{name}", "bytes": size})


@task
def count(found):
    """Nodes and GPUs by model in the file that came."""
    with urllib.request.urlopen(found["url"], timeout=10) as answer:
        rows = list(csv.DictReader(answer.read().decode().splitlines()))
    gpus = Counter()
    for row in rows:
        gpus[row["model"]] += int(row["gpu"])
    print(f"{found['bytes']} bytes: {len(rows)} nodes with {sum(gpus.values())} GPUs of {len(gpus)} models")
    return {"nodes": len(rows), "gpus": gpus}


with DAG(
    "sensor",
    description="Waits for a file in a bucket and counts what is in it.",
    params={"bucket": "http://127.0.0.1:8099", "name": "nodes.csv"},
) as dag:
    count(found=arrived(bucket=param("bucket"), name=param("name")))
