from django.urls import path

from . import api, approvals_api, backfills_api, budgets_api, clear_api

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
    path("runs", api.Runs.as_view()),
    path("runs/<int:run_id>", api.RunDetail.as_view()),
    path("runs/<int:run_id>/tasks", api.Tasks.as_view()),
    path("runs/<int:run_id>/graph", api.GraphOfRun.as_view()),
    path("runs/<int:run_id>/cancel", api.Cancel.as_view()),
    path("runs/<int:run_id>/clear", clear_api.Clear.as_view()),
    path("runs/<int:run_id>/mark", clear_api.Mark.as_view()),
    path("runs/<int:run_id>/note", clear_api.Note.as_view()),
    path("runs/<int:run_id>/tries", clear_api.Tries.as_view()),
    path("backfills", backfills_api.Backfills.as_view()),
    path("backfills/<int:backfill_id>", backfills_api.BackfillDetail.as_view()),
    path("backfills/<int:backfill_id>/pause", backfills_api.PauseBackfill.as_view()),
    path("backfills/<int:backfill_id>/resume", backfills_api.ResumeBackfill.as_view()),
    path("backfills/<int:backfill_id>/cancel", backfills_api.CancelBackfill.as_view()),
    path("backfills/<int:backfill_id>/rerun", backfills_api.RerunBackfill.as_view()),
]
