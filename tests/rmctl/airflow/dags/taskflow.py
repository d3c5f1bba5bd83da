"""DAGs in the style of Airflow 3: decorators, assets, mapped tasks, setup and teardown."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import prod

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    Asset,
    AsyncCallback,
    DeadlineAlert,
    DeadlineReference,
    Param,
    dag,
    setup,
    task,
    task_group,
    teardown,
)  # fmt: skip

orders, rates = Asset("s3://lake/orders"), Asset("s3://lake/rates")


@dag(
    schedule=(orders & rates),
    params={"factor": Param(2, type="integer", minimum=1), "note": Param(None, type=["null", "string"])},
    start_date=datetime(2025, 1, 1),
)
def taskflow():
    """Multiplies numbers."""

    @setup
    def room():
        return "room"

    @teardown
    def clean():
        print("clean")

    @task
    def numbers() -> list[int]:
        return [1, 2, 3]

    @task(max_active_tis_per_dagrun=2, map_index_template="{{ task.op_kwargs['number'] }} kg")
    def scale(number: int, factor: int) -> int:
        return number * factor

    @task(retries=1, retry_delay=timedelta(seconds=20), outlets=[Asset("s3://lake/total")])
    def total(values: list[int]) -> dict:
        return {"product": prod(values), "count": len(values)}

    @task.bash
    def show(product: int) -> str:
        return f"echo {product}"

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def large(product: int) -> bool:
        return product > 3

    @task.sensor(poke_interval=15, timeout=120)
    def ready() -> bool:
        return True

    @task
    def report(params=None, ti=None):
        print(params["factor"], ti.xcom_pull(task_ids="total"))

    @task_group
    def checks(product):
        large(product) >> report()

    made = room()
    scaled = scale.partial(factor=2).expand(number=numbers())
    result = total(scaled)
    product = result["product"]
    ready() >> show(product) >> checks(product)
    made >> scaled >> result >> clean().as_teardown(setups=made)


@dag(
    schedule="@daily",
    start_date=datetime(2025, 1, 1),
    catchup=True,
    max_active_tasks=4,
    deadline=DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(hours=3), AsyncCallback("helpers.told")),
)
def nightly():
    @task
    def night(data_interval_end=None):
        print(data_interval_end)

    @task
    def rows(day: str) -> list[dict]:
        return [{"a": 1, "b": 2}, {"a": 3}]

    @task
    def add(a: int, b: int = 5) -> int:
        return a + b

    @task(weight_rule="upstream", priority_weight=3, map_index_template="{{ said }}")
    def pair(a: int, b: int) -> list[int]:
        return [a, b]

    night()
    many = rows("{{ ds }}")
    add.expand_kwargs(many)
    add.expand_kwargs([{"a": 1}, {"a": 2, "b": 1}])
    pair.expand(a=add.partial(b=1).expand(a=[1, 2]), b=[10, 20])
    TriggerDagRunOperator.partial(task_id="each", trigger_dag_id="other").expand(conf=many)


taskflow()
nightly()
