"""A DAG in the style of Airflow 2: classic operators in a context manager."""

import json
from datetime import datetime, time, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.latest_only import LatestOnlyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sensors.external_task import ExternalTaskSensor
from airflow.sensors.filesystem import FileSensor
from airflow.sensors.python import PythonSensor
from airflow.sensors.time_delta import TimeDeltaSensor
from airflow.sensors.time_sensor import TimeSensor
from airflow.utils.task_group import TaskGroup
from helpers import rounded

UNITS = {"kg": 1.0, "t": 1000.0}
LONGEST = timedelta(hours=2)


def in_kilograms(amount, unit):
    return amount * UNITS[unit]


def weigh(amount, unit="kg", ds=None):
    print(json.dumps({"day": ds}))
    return rounded(in_kilograms(amount, unit))


def choose(weight):
    return "load.heavy" if weight > 100 else "load.light"


def is_open():
    return datetime.now().year > 2000


def told(context):
    print(context)


with DAG(
    "classic",
    description="Weighs things",
    schedule="30 6 * * 1-5",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=2,
    max_active_tasks=8,
    dagrun_timeout=timedelta(hours=6),
    tags=["scale"],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=3), "retry_exponential_backoff": True},
    params={"unit": "t"},
) as dag:
    latest = LatestOnlyOperator(task_id="latest")
    hello = BashOperator(
        task_id="hello", bash_command="echo {{ ds }} {{ params.unit }}", env={"A": "b"}, append_env=True
    )
    weight = PythonOperator(
        task_id="weight", python_callable=weigh, op_kwargs={"amount": 3, "unit": "{{ params.unit }}"}
    )
    pick = BranchPythonOperator(task_id="pick", python_callable=choose, op_args=[weight.output])
    with TaskGroup("load", tooltip="Where it goes") as load:
        EmptyOperator(task_id="light")
        BashOperator(task_id="heavy", bash_command="exit 99", pool="crane", pool_slots=2, execution_timeout=LONGEST)
    joined = EmptyOperator(task_id="joined", trigger_rule="none_failed_min_one_success")
    gate = ShortCircuitOperator(task_id="gate", python_callable=is_open)
    there = PythonSensor(
        task_id="there", python_callable=is_open, poke_interval=30, timeout=600, soft_fail=True, mode="reschedule"
    )
    file = FileSensor(task_id="file", filepath="/data/{{ ds }}.csv", poke_interval=10)
    pause = TimeDeltaSensor(task_id="pause", delta=timedelta(seconds=90))
    evening = TimeSensor(task_id="evening", target_time=time(18, 30))
    other = ExternalTaskSensor(
        task_id="other", external_dag_id="upstream_dag", external_task_id="x", execution_delta=timedelta(days=1)
    )
    start = TriggerDagRunOperator(
        task_id="start", trigger_dag_id="next_dag", conf={"unit": "{{ params.unit }}", "n": 1}, wait_for_completion=True
    )
    computed = TriggerDagRunOperator(task_id="computed", trigger_dag_id="next_dag", conf={"day": "{{ ds }}"})
    last = BashOperator(
        task_id="last", bash_command="echo done", depends_on_past=True, sla=timedelta(hours=1), on_failure_callback=told
    )
    latest >> hello >> weight >> pick >> load >> joined >> gate >> [there, file, pause, evening, other] >> start
    start >> computed >> last
