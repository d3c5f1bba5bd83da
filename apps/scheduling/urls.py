from django.urls import path

from . import api, simulation_api

urlpatterns = [
    path("jobs/<int:job_id>/why", api.Why.as_view()),
    path("simulate", simulation_api.Simulate.as_view()),
    path("replay", simulation_api.Replay.as_view()),
]
