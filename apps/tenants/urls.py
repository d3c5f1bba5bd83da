from django.urls import path

from . import api

urlpatterns = [
    path("login", api.Login.as_view()),
    path("me", api.Me.as_view()),
    path("domains", api.Domains.as_view()),
    path("domains/<str:slug>", api.DomainDetail.as_view()),
    path("tenants", api.Tenants.as_view()),
    path("tenants/<str:slug>", api.TenantDetail.as_view()),
    path("tenants/<str:slug>/members", api.Members.as_view()),
    path("tenants/<str:slug>/members/<int:membership_id>", api.MemberDetail.as_view()),
    path("tenants/<str:slug>/secrets", api.Secrets.as_view()),
    path("tenants/<str:slug>/secrets/<str:name>", api.SecretDetail.as_view()),
    path("tokens", api.Tokens.as_view()),
    path("tokens/<int:token_id>", api.TokenDetail.as_view()),
]
