"""Settings of RMPortal, all from the environment; the variables are listed in docs/architecture.md.

A wrong or missing value stops the start with a message that names the variable.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import environment

BASE_DIR = Path(__file__).resolve().parent.parent

DATA = Path(os.environ.get("RMPORTAL_DATA", BASE_DIR / "data")).resolve()
DEBUG = environment.boolean("RMPORTAL_DEBUG", False)
SECRET_KEY = environment.secret_key(DATA)
PORTAL_URL = os.environ.get("RMPORTAL_URL", "http://127.0.0.1:8080").rstrip("/")
_hostname = urlsplit(PORTAL_URL).hostname
if not _hostname:
    raise ImproperlyConfigured(f"RMPORTAL_URL={PORTAL_URL!r}: expected http(s)://host[:port].")
ALLOWED_HOSTS = [host for host in os.environ.get("RMPORTAL_ALLOWED_HOSTS", "").split(",") if host] or [
    _hostname,
    "localhost",
    "127.0.0.1",
    "[::1]",
]
HTTPS = PORTAL_URL.startswith("https://")
CSRF_TRUSTED_ORIGINS = [PORTAL_URL]

if not os.environ.get("DATABASE_URL") or not os.environ.get("REDIS_URL"):
    raise ImproperlyConfigured(
        "DATABASE_URL and REDIS_URL must be set; `./portal up` sets them for its embedded servers, "
        "`./portal manage …` and `./portal shell` for one that runs."
    )
DATABASES = {"default": environment.database(os.environ["DATABASE_URL"])}
REDIS_URL = os.environ["REDIS_URL"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "django_htmx",
    "channels",
    "apps.core",
    "apps.events",
    "apps.tenants",
    "apps.fleet",
    "apps.quotas",
    "apps.jobs",
    "apps.execution",
    "apps.scheduling",
    "apps.workflows",
    "apps.services",
    "apps.notifications",
    "apps.console",
    "rmportal",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "apps.core.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "rmportal.urls"
ASGI_APPLICATION = "rmportal.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "apps.console.context.console",
            ],
        },
    }
]

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "apps.tenants.accounts.AccountAdapter"
ACCOUNT_SESSION_REMEMBER = True
SOCIALACCOUNT_ADAPTER = "apps.tenants.accounts.SocialAccountAdapter"
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "APPS": environment.oidc_providers(),
        "OAUTH_PKCE_ENABLED": True,
        "provider_class": "apps.tenants.oidc.Provider",
    }
}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
STATIC_ROOT = DATA / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Only our own files: the libraries that the pages use are vendored under static/vendor.
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
STORAGE_ROOT = DATA / "storage"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": STORAGE_ROOT}},
    "staticfiles": {"BACKEND": "rmportal.storage.ManifestStorage"},
    **{
        name: {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": STORAGE_ROOT / name},
        }
        for name in ("logs", "artifacts", "checkpoints", "bundles")
    },
}
# What people and agents may send in one request; larger bodies stream (bundles, artifacts) with limits of their own.
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 2**20
BUNDLE_MAX_BYTES = 100 * 2**20
ARTIFACT_MAX_BYTES = 2 * 2**30
# Packed; of each member of a job the newest so many are kept, and those of a job that failed so long after its end.
CHECKPOINT_MAX_BYTES = 8 * 2**30
CHECKPOINTS_KEPT = 2
CHECKPOINT_KEEP_DAYS = 7

CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

CELERY_BROKER_URL = environment.broker(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 60, "socket_keepalive": True, "health_check_interval": 5}
# Mail to people, and the networks besides global addresses to which notifications may go (docs/notifications.md).
MAIL_CONFIGURED = bool(os.environ.get("RMPORTAL_SMTP_URL"))
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_TIMEOUT = 15
DEFAULT_FROM_EMAIL = os.environ.get("RMPORTAL_MAIL_FROM") or f"rmportal@{_hostname}"
globals().update(environment.mail(os.environ.get("RMPORTAL_SMTP_URL", "")))
NOTIFY_NETWORKS = environment.networks("RMPORTAL_NOTIFY_NETWORKS")
# Touched after each pass of a loop; the supervisor restarts a worker that lives but gets nothing done.
PROGRESS_FILE = os.environ.get("RMPORTAL_PROGRESS", "")
CELERY_BEAT_SCHEDULER = "rmportal.beat:Scheduler"
CELERY_BEAT_SCHEDULE = {
    loop: {"task": f"loop.{loop}", "schedule": seconds, "options": {"expires": seconds}}
    for loop, seconds in {
        "schedule": 2.0,
        "advance": 2.0,
        "recover": 1.0,
        "timetable": 5.0,
        "waits": 5.0,
        "deadlines": 5.0,
        "services": 5.0,
        "notify": 5.0,
        "housekeep": 60.0,
    }.items()
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.tenants.authentication.TokenAuthentication",
        "apps.tenants.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "apps.core.schema.Schema",
    "EXCEPTION_HANDLER": "apps.core.problems.exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["apps.core.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {
        "user": environment.rate("RMPORTAL_RATE_USER", "6000/min"),
        "login": environment.rate("RMPORTAL_RATE_LOGIN", "20/min"),
        "join": environment.rate("RMPORTAL_RATE_JOIN", "60/min"),
        "webhook": environment.rate("RMPORTAL_RATE_WEBHOOK", "600/min"),
    },
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "RMPortal",
    "DESCRIPTION": "One portal for compute that many organisations own.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "NodeState": "apps.fleet.states.NodeState",
        "JobState": "apps.jobs.states.JobState",
        "AttemptState": "apps.jobs.states.AttemptState",
        "RunState": "apps.workflows.states.RunState",
        "TaskState": "apps.workflows.states.TaskState",
        "BackfillState": "apps.workflows.states.BackfillState",
        "DeliveryState": "apps.notifications.states.DeliveryState",
        "ServiceState": "apps.services.states.ServiceState",
        "RolloutState": "apps.services.states.RolloutState",
        "QuotaResource": "apps.quotas.models.Resource",
        "Fungibility": ["may_stop_search", "try_next_flavor"],
        "ClusterKind": "apps.fleet.models.Cluster.Kind",
        "Role": "apps.tenants.models.Role",
        "ReplayTime": "apps.scheduling.past.TIMES",
    },
}

# What was used one half-life (in seconds) ago counts half in fair shares; the past as a whole by this weight
# against what is in use now, from 0 to below 1 (docs/scheduling.md). Evictions older than it bind nobody.
QUOTA_HALF_LIFE_SECONDS = 7 * 24 * 3600.0
QUOTA_PAST_WEIGHT = 0.5

# Seconds; docs/architecture.md, "Agent protocol".
AGENT_BEAT_SECONDS = 2.0
NODE_LOST_SECONDS = 8.0
LEASE_SECONDS = 15.0

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": environment.log_level("RMPORTAL_LOG_LEVEL", "WARNING")},
}
