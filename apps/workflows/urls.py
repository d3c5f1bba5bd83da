from django.urls import path

from . import api, budgets_api, times_api

urlpatterns = [
    path("budgets", budgets_api.Budgets.as_view()),
    path("budgets/<int:budget_id>", budgets_api.BudgetDetail.as_view()),
    path("workflows", api.Workflows.as_view()),
    path("workflows/<int:workflow_id>", api.WorkflowDetail.as_view()),
    path("workflows/<int:workflow_id>/versions", api.Versions.as_view()),
    path("workflows/<int:workflow_id>/versions/<int:number>", api.VersionDetail.as_view()),
    path("workflows/<int:workflow_id>/trigger", api.Trigger.as_view()),
    path("workflows/<int:workflow_id>/pause", api.Pause.as_view()),
    path("workflows/<int:workflow_id>/resume", api.Resume.as_view()),
    path("workflows/<int:workflow_id>/upcoming", times_api.Upcoming.as_view()),
    path("runs", api.Runs.as_view()),
    path("runs/<int:run_id>", api.RunDetail.as_view()),
    path("runs/<int:run_id>/tasks", api.Tasks.as_view()),
    path("runs/<int:run_id>/graph", api.GraphOfRun.as_view()),
    path("runs/<int:run_id>/cancel", api.Cancel.as_view()),
]
