"""Who may see and change destinations: admins of the tenant make them, members subscribe and send again."""

from apps.tenants.policies import OwnedPolicy, tenant_admin, works_for

from .models import Delivery, Destination, Subscription


class DestinationPolicy(OwnedPolicy[Destination]):
    model = Destination
    noun = "destination"
    rules = {
        "change": lambda actor, row: tenant_admin(actor, row.tenant),
        "delete": lambda actor, row: tenant_admin(actor, row.tenant),
        "test": works_for,
        "subscribe": works_for,
    }
    scopes = {"change": "admin", "delete": "admin"}


class SubscriptionPolicy(OwnedPolicy[Subscription]):
    model = Subscription
    noun = "subscription"
    owner = "destination__tenant"
    rules = {"delete": lambda actor, row: works_for(actor, row.destination)}


class DeliveryPolicy(OwnedPolicy[Delivery]):
    model = Delivery
    noun = "delivery"
    rules = {"send_again": works_for}


destinations = DestinationPolicy()
subscriptions = SubscriptionPolicy()
deliveries = DeliveryPolicy()
