"""Job and workflow specs: one validated schema for the API, the CLI, the SDK and the forms."""

from .arguments import Argument, ArgumentError
from .errors import BadValue, FieldError, SpecError
from .job import GpuRequest, GroupSpec, Intent, JobSpec, Resources, Retries, job_schema, parse_job
from .params import check_params
from .schedule import cron_expression
from .tasks import CompiledTask, task_job
from .workflow import TRIGGER_RULES, TaskSpec, WorkflowSpec, parse_workflow, workflow_schema

__all__ = [
    "TRIGGER_RULES",
    "Argument",
    "ArgumentError",
    "BadValue",
    "CompiledTask",
    "FieldError",
    "GpuRequest",
    "GroupSpec",
    "Intent",
    "JobSpec",
    "Resources",
    "Retries",
    "SpecError",
    "TaskSpec",
    "WorkflowSpec",
    "check_params",
    "cron_expression",
    "job_schema",
    "parse_job",
    "parse_workflow",
    "task_job",
    "workflow_schema",
]
