"""Options of Airflow's DAGs and operators that have another name here. Like dag.py it imports nothing heavy."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What to write instead.
OF_TASKS = {
    "task_id": "id",
    "pool": 'slots="name" or slots={"name": …, "count": …}',
    "pool_slots": 'slots={"name": …, "count": …}',
    "priority_weight": "weight",
    "max_active_tis_per_dag": "max_active",
    "max_active_tis_per_dagrun": "max_active_per_run",
    "execution_timeout": 'time_limit, such as "10m"',
    "retry_delay": 'retries={"limit": …, "delay": "5s"}',
    "retry_exponential_backoff": 'retries={"limit": …, "factor": 2}',
    "max_retry_delay": 'retries={"limit": …, "max_delay": "5m"}',
    "on_failure_callback": "on_failure, which names destinations",
    "on_success_callback": "on_success, which names destinations",
    "on_retry_callback": "on_retry, which names destinations",
    "sla": "deadline",
    "queue": "intent, which says what a node must have",
    "executor_config": "resources and intent",
    "append_env": "env, which is added to what a task has",
}
OF_DAGS = {
    "dag_id": 'the first argument, as in DAG("etl")',
    "default_args": 'defaults, such as defaults={"retries": {"limit": 2}}',
    "schedule_interval": "schedule",
    "timetable": "schedule",
    "dagrun_timeout": 'time_limit, such as "1h"',
    "doc_md": "description",
    "concurrency": "max_active_tasks_all_runs",
    "on_failure_callback": "on_failure, which names destinations",
    "on_success_callback": "on_success, which names destinations",
    "sla_miss_callback": "on_deadline, which names destinations",
}


def told(name: str, names: "dict[str, str]", known: "Iterable[str]") -> str:
    """What to say of an option that is not there."""
    if name in names:
        return f"there is no option {name}; what Airflow calls so is {names[name]}."
    return f"there is no option {name}; options are {', '.join(known)}."
