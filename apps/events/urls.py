from django.urls import path

from . import api

urlpatterns = [
    path("events", api.Events.as_view()),
    path("events/<int:event_id>", api.EventDetail.as_view()),
]
