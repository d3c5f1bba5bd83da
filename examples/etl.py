"""A small pipeline: extract, transform in parallel, load, and tell someone.

rmctl push examples/etl.py
rmctl trigger etl -p limit=20 --wait
"""

from rmctl import DAG, bash, param, task


@task
def extract(limit):
    """Squares, in batches of five."""
    numbers = [n * n for n in range(limit)]
    return {"batches": [numbers[start : start + 5] for start in range(0, limit, 5)], "count": limit}


@task(retries={"limit": 2, "delay": "1s"})
def transform(batch):
    return sum(batch)


@task
def load(sums, count):
    print(f"{count} numbers in {len(sums)} batches, together {sum(sums)}")
    return sum(sums)


with DAG("etl", description="Extract, transform, load.", schedule="@daily", params={"limit": 20}) as dag:
    rows = extract(limit=param("limit"))
    sums = transform.expand(batch=rows["batches"])
    total = load(sums=sums, count=rows["count"])
    total >> bash("notify", 'echo "run $RM_RUN_ID: the total is $RM_ARG_TOTAL"', arguments={"total": total})
