"""Who may see and control jobs: members of the tenant; providers see what runs on their nodes through the fleet."""

from apps.tenants.policies import OwnedPolicy, works_for

from .models import Job


class JobPolicy(OwnedPolicy[Job]):
    model = Job
    noun = "job"
    rules = {"cancel": works_for, "hold": works_for, "release": works_for}


jobs = JobPolicy()
