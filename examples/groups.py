"""Nested groups between a setup and a teardown: what was made for a run goes away, however the run ends.

`make` books a folder in a bucket. Two groups work in it side by side, each with a group of checks inside. `clean`
empties the folder when all of that has ended, also when a part has failed: the run has failed then, and still nothing
is left behind. On the run's page each group folds into one box.

    python examples/bucket.py 8099              # in a terminal of its own
    rmctl push examples/groups.py
    rmctl trigger groups --wait
    rmctl trigger groups -p limit=10 --wait     # a check fails; curl http://127.0.0.1:8099/ shows no file all the same
"""

import csv
import json
import urllib.request
from collections import Counter
from pathlib import Path

from rmctl import DAG, TaskFailed, TaskGroup, context, param, setup, task, teardown

NODES = "data/nodes.csv"


def request(method, url, content=None):
    """One request to the bucket; the body of its answer."""
    asked = urllib.request.Request(url, data=content, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.read()


@setup
def make(bucket):
    """A folder of this run's own, booked by a file in it."""
    folder = f"{bucket}/run-{context().run_id}"
    request("PUT", f"{folder}/booked", b"")
    return folder


@task
def count(folder, column):
    """How many cards each value of the column has, put into the folder."""
    found = Counter()
    with open(Path(__file__).parent / NODES, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            found[row[column]] += int(row["gpu"])
    request("PUT", f"{folder}/{column}.json", json.dumps(found).encode())
    return len(found)


@task
def whole(folder, column, cards):
    """Every card of the cluster is counted once."""
    total = sum(json.loads(request("GET", f"{folder}/{column}.json")).values())
    if total != cards:
        raise TaskFailed(f"{column}: {total} cards are counted, the cluster has {cards}")
    return total


@task
def common(folder, column, limit):
    """No value stands for a few cards only."""
    found = json.loads(request("GET", f"{folder}/{column}.json"))
    rare = sorted(value for value, cards in found.items() if cards < limit)
    if rare:
        raise TaskFailed(f"{column}: fewer than {limit} cards have {', '.join(rare)}")
    return len(found)


@teardown
def clean(bucket, folder):
    """Removes every file of this run; says how many there were."""
    path = folder.removeprefix(bucket)
    names = [name for name in json.loads(request("GET", f"{bucket}/")) if name.startswith(f"{path}/")]
    for name in names:
        request("DELETE", bucket + name)
    print(f"removed {', '.join(names)}")
    return len(names)


with DAG(
    "groups",
    description="Groups in groups, between a setup and a teardown that always comes.",
    params={"bucket": "http://127.0.0.1:8099", "cards": 6212, "limit": 1},
    files=[NODES],
) as dag:
    folder = make(bucket=param("bucket"))
    with clean(bucket=param("bucket"), folder=folder).as_teardown(setups=folder):
        for column in ("model", "gpu"):
            with TaskGroup(f"by_{column}"):
                counted = count(folder=folder, column=column)
                with TaskGroup("checks"):
                    checks = [
                        whole(folder=folder, column=column, cards=param("cards")),
                        common(folder=folder, column=column, limit=param("limit")),
                    ]
                counted >> checks
