from django.urls import path

from . import api

urlpatterns = [
    path("clusters", api.Clusters.as_view()),
    path("clusters/<int:cluster_id>", api.ClusterDetail.as_view()),
    path("nodes", api.Nodes.as_view()),
    path("nodes/<int:node_id>", api.NodeDetail.as_view()),
    path("nodes/<int:node_id>/cordon", api.Cordon.as_view()),
    path("nodes/<int:node_id>/uncordon", api.Uncordon.as_view()),
    path("nodes/<int:node_id>/drain", api.Drain.as_view()),
    path("nodes/<int:node_id>/credentials", api.Credentials.as_view()),
    path("join-tokens", api.JoinTokens.as_view()),
    path("join-tokens/<int:token_id>", api.JoinTokenDetail.as_view()),
    path("contributions", api.Contributions.as_view()),
    path("contributions/<int:contribution_id>", api.ContributionDetail.as_view()),
    path("regions", api.Regions.as_view()),
    path("regions/<slug:region>", api.RegionDetail.as_view()),
    path("pools", api.Pools.as_view()),
    path("pools/<int:pool_id>", api.PoolDetail.as_view()),
    path("flavors", api.Flavors.as_view()),
    path("flavors/<int:flavor_id>", api.FlavorDetail.as_view()),
]
