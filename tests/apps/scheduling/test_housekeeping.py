"""What goes by itself, once a minute."""

from datetime import timedelta

from django.contrib.sessions.models import Session
from django.utils import timezone

from apps.core.idempotency import KEEP_HOURS
from apps.core.models import IdempotencyRecord
from apps.scheduling.models import Cycle
from apps.scheduling.tasks import CYCLE_AGE, housekeep
from tests.personas import World


def test_what_has_served_its_time_goes_and_the_rest_stays(world: World) -> None:
    now, minute = timezone.now(), timedelta(minutes=1)
    for name, age in (("old", minute), ("young", -minute)):
        Session.objects.create(session_key=name, session_data="", expire_date=now - age)
        times = {"observe_ms": 1, "decide_ms": 1, "apply_ms": 1}
        Cycle.objects.create(at=now - CYCLE_AGE - age, considered=1, granted=0, **times)
        record = IdempotencyRecord.objects.create(actor="user:max", key=name, fingerprint="")
        kept = timedelta(hours=KEEP_HOURS)
        IdempotencyRecord.objects.filter(pk=record.pk).update(created_at=now - kept - age)

    assert housekeep() is False

    assert [session.session_key for session in Session.objects.all()] == ["young"]
    assert [record.key for record in IdempotencyRecord.objects.all()] == ["young"]
    assert Cycle.objects.get().at > now - CYCLE_AGE
