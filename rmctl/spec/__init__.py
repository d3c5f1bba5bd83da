"""Job and workflow specs: one validated schema for the API, the CLI, the SDK and the forms."""

from .errors import FieldError, SpecError
from .job import GpuRequest, GroupSpec, Intent, JobSpec, Resources, Retries, job_schema, parse_job

__all__ = [
    "FieldError",
    "GpuRequest",
    "GroupSpec",
    "Intent",
    "JobSpec",
    "Resources",
    "Retries",
    "SpecError",
    "job_schema",
    "parse_job",
]
