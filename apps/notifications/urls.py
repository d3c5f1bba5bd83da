from django.urls import path

from . import api

urlpatterns = [
    path("destinations", api.Destinations.as_view()),
    path("destinations/<int:destination_id>", api.DestinationDetail.as_view()),
    path("destinations/<int:destination_id>/test", api.TestMessage.as_view()),
    path("destinations/<int:destination_id>/subscriptions", api.Subscribe.as_view()),
    path("subscriptions", api.Subscriptions.as_view()),
    path("subscriptions/<int:subscription_id>", api.SubscriptionDetail.as_view()),
    path("deliveries", api.Deliveries.as_view()),
    path("deliveries/<int:delivery_id>/send-again", api.SendAgain.as_view()),
]
