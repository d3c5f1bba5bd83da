from django.urls import path

from . import api

urlpatterns = [
    path("jobs/<int:job_id>/logs", api.JobLogs.as_view()),
    path("jobs/<int:job_id>/artifacts", api.JobArtifacts.as_view()),
    path("jobs/<int:job_id>/artifacts/<int:artifact_id>", api.ArtifactContent.as_view()),
    path("jobs/<int:job_id>/checkpoints", api.JobCheckpoints.as_view()),
    path("jobs/<int:job_id>/checkpoints/<int:checkpoint_id>", api.CheckpointContent.as_view()),
    path("bundles", api.Bundles.as_view()),
    path("agent/join", api.AgentJoin.as_view()),
    path("agent/bundles/<str:sha256>", api.AgentBundle.as_view()),
    path("agent/placements/<int:placement_id>/checkpoint", api.AgentCheckpoint.as_view()),
    path("agent/placements/<int:placement_id>/artifacts/<path:path>", api.AgentArtifact.as_view()),
]
