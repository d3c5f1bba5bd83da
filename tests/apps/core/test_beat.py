"""Beat ticks when a tick is due, and sleeps until then."""

import time
from pathlib import Path

from celery import Celery

from rmportal.beat import Scheduler


class Noted(Scheduler):
    """Notes what it would send."""

    def apply_entry(self, entry: object, producer: object = None) -> None:
        self.sent.append(time.monotonic())


def test_it_does_not_turn_while_it_waits(tmp_path: Path) -> None:
    app = Celery(set_as_current=False, broker="memory://")
    app.conf.beat_schedule = {"loop": {"task": "loop", "schedule": 0.1}}
    beat = Noted(app=app, schedule_filename=str(tmp_path / "beat"), lazy=True)
    beat.sent = []
    beat.setup_schedule()
    turns = 0
    while len(beat.sent) < 4:
        turns += 1
        pause = beat.tick()
        if pause and pause > 0:
            time.sleep(pause)
    beat.close()
    assert turns < 40
    assert min(late - early for early, late in zip(beat.sent, beat.sent[1:], strict=False)) > 0.08
