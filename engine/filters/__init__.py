"""Which nodes can take a member: a file per filter, each a small function over arrays, found by being here.

Static filters look at what does not change while a cycle runs, capacity filters at what is free. A filter
returns None when the request asks nothing of it.
"""

from engine.filters.registry import FILTERS, Filter, capacity_filters, filter, load, static_filters

__all__ = ["FILTERS", "Filter", "capacity_filters", "filter", "static_filters"]

load(__name__, __path__)
