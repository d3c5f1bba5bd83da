"""Answering the questions that tasks ask."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.events.record import transition
from rmctl.spec import SpecError, check_params

from .. import moved, policies, waits
from ..models import Approval, Wait
from ..states import APPROVAL_EDGES

COMMENT_MAX = 1000


@transaction.atomic
def answer_approval(
    *,
    actor: Actor,
    approval_id: int,
    option: str,
    values: Mapping[str, Any] | None = None,
    comment: str = "",
) -> Approval:
    """Answer a question with one of its options and its form filled in; its task goes on at once.

    Only those who are asked may answer, and only once. Raises Invalid naming the option or each wrong value of the
    form, and Conflict for a question that is not open any more.
    """
    approval = policies.approvals.get(actor, "answer", lock=True, pk=approval_id)
    now = timezone.now()
    if approval.state != Approval.State.OPEN or approval.expires_at <= now:
        raise Conflict(f"Approval {approval.pk} is not open any more.", code="already_ended")
    if option not in approval.options:
        raise Invalid.field("option", f"one of {', '.join(approval.options)}.", "not_a_choice")
    if len(comment) > COMMENT_MAX:
        raise Invalid.field("comment", f"at most {COMMENT_MAX} characters.", "too_long")
    try:
        filled = check_params(approval.form, values or {})
    except SpecError as error:
        errors = [{**fault, "field": f"values{fault['field'].removeprefix('params')}"} for fault in error.errors]
        said = f"{errors[0]['field']}: {errors[0]['message']}"
        raise Invalid(said, code="invalid_values", errors=errors) from None  # type: ignore[arg-type]
    fact = waits.approval_fact("approval.answered", approval, option=option, comment=comment)
    transition(
        actor,
        approval,
        APPROVAL_EDGES,
        Approval.State.ANSWERED,
        fact,
        option=option,
        values=filled,
        comment=comment,
        answered_by_id=actor.user_id,
        answered_at=now,
    )
    Wait.objects.filter(task=approval.task_id).update(due_at=now)
    moved.tell_waits([approval.task_id])
    return approval
