from django.urls import path

from . import api

urlpatterns = [path("jobs/<int:job_id>/why", api.Why.as_view())]
