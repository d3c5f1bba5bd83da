"""Addresses of the pages."""

from django.urls import path

from .views import artifacts, fleet, governance, jobs, overview, workflows

app_name = "console"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("palette/", overview.palette, name="palette"),
    path("tenant/", overview.switch_tenant, name="tenant-switch"),
    path("nodes/", fleet.nodes, name="nodes"),
    path("nodes/join/", fleet.create_join_token, name="join-token"),
    path("nodes/<int:node_id>/", fleet.node, name="node"),
    path(
        "nodes/<int:node_id>/figures/<str:name>",
        fleet.node_figure,
        name="node-figure",
    ),
    path(
        "nodes/<int:node_id>/<str:action>",
        fleet.node_action,
        name="node-action",
    ),
    path("pools/", fleet.pools, name="pools"),
    path("artifacts/<int:artifact_id>/", artifacts.artifact, name="artifact"),
    path("queue/", jobs.queue, name="queue"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/submit/", jobs.job_submit, name="job-submit"),
    path("jobs/<int:job_id>/", jobs.job, name="job"),
    path("jobs/<int:job_id>/<str:action>", jobs.job_action, name="job-action"),
    path("workflows/", workflows.workflows, name="workflows"),
    path("workflows/<int:workflow_id>/", workflows.workflow, name="workflow"),
    path("workflows/<int:workflow_id>/graph", workflows.workflow_graph, name="workflow-graph"),
    path("workflows/<int:workflow_id>/durations", workflows.workflow_figure, name="workflow-figure"),
    path(
        "workflows/<int:workflow_id>/<str:action>",
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
    path(
        "tenants/<slug:slug>/<str:action>",
        governance.tenant_action,
        name="tenant-action",
    ),
    path("events/", governance.events, name="events"),
    path("tokens/", governance.tokens, name="tokens"),
    path("tokens/<int:token_id>/revoke", governance.token_revoke, name="token-revoke"),
]
