"""Addresses of the pages."""

from django.urls import path, re_path

from .views import artifacts, fleet, governance, jobs, overview, workflows

app_name = "console"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("palette/", overview.palette, name="palette"),
    path("tenant/", overview.switch_tenant, name="tenant-switch"),
    path("nodes/", fleet.nodes, name="nodes"),
    path("nodes/join/", fleet.create_join_token, name="join-token"),
    path("nodes/<int:node_id>/", fleet.node, name="node"),
    re_path(
        r"^nodes/(?P<node_id>\d{1,18})/figures/(?P<name>cpu|memory|network|gpus)$",
        fleet.node_figure,
        name="node-figure",
    ),
    re_path(
        r"^nodes/(?P<node_id>\d{1,18})/(?P<action>cordon|uncordon|drain|remove)$",
        fleet.node_action,
        name="node-action",
    ),
    path("pools/", fleet.pools, name="pools"),
    path("artifacts/<int:artifact_id>/", artifacts.artifact, name="artifact"),
    path("queue/", jobs.queue, name="queue"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/submit/", jobs.job_submit, name="job-submit"),
    path("jobs/<int:job_id>/", jobs.job, name="job"),
    re_path(r"^jobs/(?P<job_id>\d{1,18})/(?P<action>cancel|hold|release)$", jobs.job_action, name="job-action"),
    path("workflows/", workflows.workflows, name="workflows"),
    path("workflows/<int:workflow_id>/", workflows.workflow, name="workflow"),
    path("workflows/<int:workflow_id>/graph", workflows.workflow_graph, name="workflow-graph"),
    path("workflows/<int:workflow_id>/durations", workflows.workflow_figure, name="workflow-figure"),
    re_path(
        r"^workflows/(?P<workflow_id>\d{1,18})/(?P<action>trigger|pause|resume)$",
        workflows.workflow_action,
        name="workflow-action",
    ),
    path("runs/", workflows.runs, name="runs"),
    path("runs/<int:run_id>/", workflows.run, name="run"),
    path("runs/<int:run_id>/graph", workflows.run_graph, name="run-graph"),
    path("runs/<int:run_id>/tasks/<path:name>/", workflows.run_task, name="run-task"),
    path("runs/<int:run_id>/cancel", workflows.run_cancel, name="run-cancel"),
    path("quotas/", governance.quotas, name="quotas"),
    path("tenants/", governance.tenants, name="tenants"),
    path("tenants/<slug:slug>/", governance.tenant, name="tenant"),
    re_path(
        r"^tenants/(?P<slug>[a-z0-9-]{1,63})/(?P<action>add-member|remove-member|set-secret|delete-secret|suspend|resume)$",
        governance.tenant_action,
        name="tenant-action",
    ),
    path("events/", governance.events, name="events"),
    path("tokens/", governance.tokens, name="tokens"),
    path("tokens/<int:token_id>/revoke", governance.token_revoke, name="token-revoke"),
]
