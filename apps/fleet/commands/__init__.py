"""The only writers of the fleet. Lock order: cluster, then nodes by id, then their cards and credentials."""

from .clusters import create_cluster, create_join_token, delete_cluster, revoke_join_token, update_cluster
from .connections import Replaced, connect_node, connection_topic, nodes_seen, require_newest
from .contributions import create_contribution, delete_contribution, update_contribution
from .holdings import update_holdings
from .joining import join_node, revoke_credentials, rotate_credentials, update_inventory
from .nodes import (
    cordon_node,
    drain_node,
    finish_drain,
    mark_lost,
    mark_returned,
    remove_node,
    set_labels,
    uncordon_node,
)
from .pools import create_flavor, create_pool, delete_flavor, delete_pool, update_flavor, update_pool
from .regions import delete_region, set_region

__all__ = [
    "Replaced",
    "connect_node",
    "connection_topic",
    "cordon_node",
    "create_cluster",
    "create_contribution",
    "create_flavor",
    "create_join_token",
    "create_pool",
    "delete_cluster",
    "delete_contribution",
    "delete_flavor",
    "delete_pool",
    "delete_region",
    "drain_node",
    "finish_drain",
    "join_node",
    "mark_lost",
    "mark_returned",
    "nodes_seen",
    "remove_node",
    "require_newest",
    "revoke_credentials",
    "revoke_join_token",
    "rotate_credentials",
    "set_labels",
    "set_region",
    "uncordon_node",
    "update_cluster",
    "update_contribution",
    "update_flavor",
    "update_holdings",
    "update_inventory",
    "update_pool",
]
