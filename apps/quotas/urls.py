from django.urls import path

from . import api

urlpatterns = [
    path("quotas", api.Quotas.as_view()),
    path("quotas/<int:quota_id>", api.QuotaDetail.as_view()),
    path("quotas/<int:quota_id>/limits", api.QuotaLimits.as_view()),
]
