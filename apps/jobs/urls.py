from django.urls import path

from . import api

urlpatterns = [
    path("tenants/<str:slug>/consumption", api.TenantConsumption.as_view()),
    path("jobs", api.Jobs.as_view()),
    path("jobs/<int:job_id>", api.JobDetail.as_view()),
    path("jobs/<int:job_id>/cancel", api.Cancel.as_view()),
    path("jobs/<int:job_id>/hold", api.Hold.as_view()),
    path("jobs/<int:job_id>/release", api.Release.as_view()),
    path("jobs/<int:job_id>/attempts", api.Attempts.as_view()),
]
