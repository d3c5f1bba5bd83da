"""A DAG of tasks that only Airflow itself can run."""

from datetime import datetime

from airflow import DAG
from airflow.decorators import task
from airflow.exceptions import AirflowSkipException
from airflow.models import Variable
from airflow.models.baseoperator import BaseOperator
from airflow.operators.bash import BashOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator
from airflow.sensors.base import BaseSensorOperator


class Greeter(BaseOperator):
    template_fields = ("greeting",)

    def __init__(self, greeting, greeter_conn_id="people", **kwargs):
        super().__init__(**kwargs)
        self.greeting, self.greeter_conn_id = greeting, greeter_conn_id

    def execute(self, context):
        context["ti"].xcom_push(key="length", value=len(self.greeting))
        return self.greeting


class Third(BaseSensorOperator):
    def poke(self, context):
        return context["ti"].try_number >= 1


def pushed(ti, **context):
    if context["params"].get("skip"):
        raise AirflowSkipException("nothing to do")
    return {"said": ti.xcom_pull(task_ids="greet"), "long": ti.xcom_pull(task_ids="greet", key="length")}


def where(ti):
    return "left" if ti.xcom_pull(task_ids="pushed")["long"] > 3 else "right"


with DAG("wrapped", schedule=None, start_date=datetime(2024, 1, 1), params={"skip": False}) as dag:
    greet = Greeter(task_id="greet", greeting="hello {{ ds }}")
    third = Third(task_id="third", poke_interval=5, timeout=60)
    push = PythonOperator(task_id="pushed", python_callable=pushed)
    branch = BranchPythonOperator(task_id="where", python_callable=where)
    left = BashOperator(task_id="left", bash_command="echo {{ task_instance_key_str }}")
    right = PythonOperator(task_id="right", python_callable=lambda: Variable.get("side"))
    both = BashOperator.partial(task_id="both").expand(bash_command=["echo 1", "echo 2"], env=[{"A": "1"}, {"A": "2"}])

    @task
    def added(x, y, ti=None):
        return x + y

    @task
    def joined(pair, ti=None):
        return "/".join(str(part) for part in pair)

    sums = added.expand(x=[1, 2], y=both.output)
    joined.expand(pair=both.output.zip(sums, fillvalue="none"))
    greet >> third >> push >> branch >> [left, right] >> both
    left >> sums
