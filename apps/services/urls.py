from django.urls import path

from . import api

urlpatterns = [
    path("services", api.Services.as_view()),
    path("services/<int:service_id>", api.ServiceDetail.as_view()),
    path("services/<int:service_id>/scale", api.Scale.as_view()),
    path("services/<int:service_id>/rollback", api.Rollback.as_view()),
    path("services/<int:service_id>/stop", api.Stop.as_view()),
]
