from django.urls import path

from . import api, approvals_api, budgets_api, datasets_api, times_api

urlpatterns = [
    path("budgets", budgets_api.Budgets.as_view()),
    path("budgets/<int:budget_id>", budgets_api.BudgetDetail.as_view()),
    path("approvals", approvals_api.Approvals.as_view()),
    path("approvals/<int:approval_id>", approvals_api.ApprovalDetail.as_view()),
    path("approvals/<int:approval_id>/answer", approvals_api.Answer.as_view()),
    path("workflows", api.Workflows.as_view()),
    path("workflows/<int:workflow_id>", api.WorkflowDetail.as_view()),
    path("workflows/<int:workflow_id>/versions", api.Versions.as_view()),
    path("workflows/<int:workflow_id>/versions/<int:number>", api.VersionDetail.as_view()),
    path("workflows/<int:workflow_id>/trigger", api.Trigger.as_view()),
    path("workflows/<int:workflow_id>/pause", api.Pause.as_view()),
    path("workflows/<int:workflow_id>/resume", api.Resume.as_view()),
    path("workflows/<int:workflow_id>/upcoming", times_api.Upcoming.as_view()),
    path("datasets", datasets_api.Datasets.as_view()),
    path("dataset-events", datasets_api.Events.as_view()),
    path("datasets/<int:dataset_id>", datasets_api.DatasetDetail.as_view()),
    path("datasets/<int:dataset_id>/events", datasets_api.DatasetEvents.as_view()),
    path("datasets/<int:dataset_id>/lineage", datasets_api.Lineage.as_view()),
    path("runs/<int:run_id>/datasets", datasets_api.TriggeredBy.as_view()),
    path("webhooks", datasets_api.Webhooks.as_view()),
    path("webhooks/<int:webhook_id>", datasets_api.WebhookDetail.as_view()),
    path("webhooks/<int:webhook_id>/deliveries", datasets_api.Deliveries.as_view()),
    path("runs", api.Runs.as_view()),
    path("runs/<int:run_id>", api.RunDetail.as_view()),
    path("runs/<int:run_id>/tasks", api.Tasks.as_view()),
    path("runs/<int:run_id>/graph", api.GraphOfRun.as_view()),
    path("runs/<int:run_id>/cancel", api.Cancel.as_view()),
]
