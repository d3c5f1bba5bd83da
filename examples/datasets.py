"""Two workflows joined by a dataset: the second one runs whenever the first has made new data.

`orders` takes orders and says by `outlets` that it has made the dataset shop://orders. `revenue` has no timetable: it
waits for that dataset and gets what the task that made it returned. Neither knows the other, so a third one can join
without a change.

    rmctl push examples/datasets.py
    rmctl trigger orders --wait
    rmctl list runs                             # a run of revenue, caused by a dataset
"""

from rmctl import DAG, Dataset, param, task

ORDERS = Dataset("shop://orders")
PRICES = {"apple": 0.25, "bread": 3.5, "coffee": 7.0}


@task(outlets=[ORDERS])
def take(orders):
    """The orders by article; what it returns goes with the dataset's event."""
    unknown = sorted(set(orders) - set(PRICES))
    if unknown:
        raise ValueError(f"no price for {', '.join(unknown)}")
    print(f"{sum(orders.values())} pieces of {len(orders)} articles")
    return orders


@task
def total(events):
    """What the orders that caused this run are worth."""
    import json

    orders = [event["extra"] for made in json.loads(events).values() for event in made]
    worth = sum(PRICES[article] * pieces for one in orders for article, pieces in one.items())
    print(f"{len(orders)} deliveries of orders, worth {worth:.2f}")
    return {"deliveries": len(orders), "worth": worth}


with DAG(
    "orders",
    description="Takes orders and makes the dataset shop://orders.",
    params={"orders": {"type": "object", "default": {"apple": 40, "bread": 3, "coffee": 2}}},
) as orders:
    take(orders=param("orders"))

with DAG("revenue", description="Works out what new orders are worth.", schedule=ORDERS) as revenue:
    total(events="{{ triggering_dataset_events | tojson }}")
