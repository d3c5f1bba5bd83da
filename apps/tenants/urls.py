from django.urls import path

from . import api, stored_api

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
    path("tenants/<str:slug>/variables", stored_api.Variables.as_view()),
    path("tenants/<str:slug>/variables/<str:variable>", stored_api.VariableDetail.as_view()),
    path("tenants/<str:slug>/connections", stored_api.Connections.as_view()),
    path("tenants/<str:slug>/connections/<str:connection>", stored_api.ConnectionDetail.as_view()),
    path("tokens", api.Tokens.as_view()),
    path("tokens/<int:token_id>", api.TokenDetail.as_view()),
]
