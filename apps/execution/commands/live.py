"""What an agent may still write to: a member of an attempt that is live, and the newest of its job."""

from apps.core.errors import Conflict, NotFound
from apps.jobs.models import Placement
from apps.jobs.states import ATTEMPT_LIVE


def live_placement(node_id: int, placement_id: int, token: int, *, lock: bool = False) -> Placement:
    """The placement if it is live with this token. While it is locked, no later attempt of its job can begin."""
    rows = Placement.objects.select_related("attempt__job").filter(pk=placement_id, node_id=node_id)
    placement = (rows.select_for_update(of=("self",), no_key=True) if lock else rows).first()
    if placement is None:
        raise NotFound(f"Placement {placement_id} is not on this node.")
    attempt = placement.attempt
    if attempt.token != token or attempt.job.token != token or placement.state not in ATTEMPT_LIVE:
        raise Conflict(f"Placement {placement_id} is not live with token {token}.", code="stale_token")
    return placement
