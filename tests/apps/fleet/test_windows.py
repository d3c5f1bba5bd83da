"""When windows are open, by the clock on the wall of their zone."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.fleet.windows import AHEAD_DAYS, DAYS, checked_windows, longest, spans, weekly

ZURICH = ZoneInfo("Europe/Zurich")


def window(days: str, begins: str, ends: str) -> dict[str, Any]:
    return {"days": days.split(), "from": begins, "to": ends}


def utc(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc]


def around(windows: list[dict[str, Any]], year: int, month: int, day: int, zone: str = "Europe/Zurich") -> list[Any]:
    return [
        (datetime.fromtimestamp(span.start, UTC), datetime.fromtimestamp(span.end, UTC))
        for span in spans(weekly(windows), zone, date(year, month, day))
    ]


def test_a_window_across_midnight_ends_on_the_next_day() -> None:
    found = spans(weekly([window("sun", "18:00", "08:00")]), "Europe/Zurich", date(2026, 11, 18))
    assert (utc(2026, 11, 22, 17), utc(2026, 11, 23, 7), "18:00 on Sun 22 Nov (Europe/Zurich)") in found


def test_windows_that_touch_or_overlap_are_one_span() -> None:
    windows = [window("fri", "18:00", "24:00"), window("sat sun", "00:00", "24:00"), window("mon", "00:00", "08:00")]
    assert (datetime(2026, 11, 20, 17, tzinfo=UTC), datetime(2026, 11, 23, 7, tzinfo=UTC)) in around(
        windows, 2026, 11, 18
    )
    assert longest(weekly(windows)) == (6 + 48 + 8) * 3600


def test_every_hour_of_the_week_is_always() -> None:
    windows = weekly([window(" ".join(DAYS), "12:00", "06:00"), window(" ".join(DAYS), "05:00", "13:00")])
    assert longest(windows) == inf
    assert spans(windows, "UTC", date(2026, 1, 1)) == ((-inf, inf, ""),)


def test_a_night_in_which_the_clock_moves_is_an_hour_shorter_or_longer() -> None:
    nights = [window("sat", "20:00", "06:00")]
    spring = next(span for span in around(nights, 2026, 3, 28) if span[0].date() == date(2026, 3, 28))
    autumn = next(span for span in around(nights, 2026, 10, 24) if span[0].date() == date(2026, 10, 24))
    assert [end - begin for begin, end in (spring, autumn)] == [timedelta(hours=9), timedelta(hours=11)]
    assert [end.astimezone(ZURICH).hour for _, end in (spring, autumn)] == [6, 6]


def test_times_that_are_skipped_or_come_twice() -> None:
    # On 29 March 2026 the clock goes from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
    (skipped,) = [span for span in around([window("sun", "02:30", "04:00")], 2026, 3, 28) if span[0].month == 3
                  and span[0].day == 29]  # fmt: skip
    assert skipped == (datetime(2026, 3, 29, 1, 30, tzinfo=UTC), datetime(2026, 3, 29, 2, tzinfo=UTC))
    nothing = around([window("sun", "02:30", "03:15")], 2026, 3, 28)
    assert not [span for span in nothing if span[0].date() == date(2026, 3, 29)]
    (twice,) = [span for span in around([window("sun", "02:30", "04:00")], 2026, 10, 24)
                if span[0].date() == date(2026, 10, 25)]  # fmt: skip
    assert twice == (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC))


CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 15, 59]))
WINDOWS = st.lists(
    st.builds(
        lambda days, begins, ends: {"days": sorted(days), "from": begins, "to": ends},
        st.sets(st.sampled_from(DAYS), min_size=1),
        CLOCK,
        st.one_of(CLOCK, st.just("24:00")),
    ).filter(lambda one: one["from"] != one["to"]),
    min_size=1,
    max_size=4,
)


@given(WINDOWS, st.integers(0, 40 * 24 * 60))
def test_a_minute_is_inside_exactly_if_a_window_of_its_day_or_the_one_before_says_so(
    windows: list[dict[str, Any]], minute: int
) -> None:
    at = datetime(2026, 5, 4, tzinfo=UTC) + timedelta(minutes=minute)  # No clock moves in these weeks.
    wall = at.astimezone(ZURICH)
    today, yesterday, clock = DAYS[wall.weekday()], DAYS[wall.weekday() - 1], f"{wall:%H:%M}"

    def says(one: dict[str, Any]) -> bool:
        begins, ends = one["from"], one["to"]
        if begins < ends:
            return today in one["days"] and begins <= clock < ends
        return (today in one["days"] and clock >= begins) or (yesterday in one["days"] and clock < ends)

    found = spans(weekly(checked_windows(windows)), "Europe/Zurich", date(2026, 5, 4))
    assert any(span.start <= at.timestamp() < span.end for span in found) == any(map(says, windows))
    assert all(before.end < after.start for before, after in pairwise(found))
    assert all(span.end - span.start <= longest(weekly(windows)) for span in found)


def test_openings_are_known_far_enough_ahead() -> None:
    found = around([window("mon", "08:00", "09:00")], 2026, 11, 18)
    assert found[-1][0] > datetime(2026, 11, 18, tzinfo=UTC) + timedelta(days=AHEAD_DAYS - 7)
    assert found[0][0] < datetime(2026, 11, 18, tzinfo=UTC) - timedelta(days=7)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "America/St_Johns", "Asia/Kathmandu"])
def test_days_are_those_of_the_zone(zone: str) -> None:
    begins, _ = next(span for span in around([window("wed", "00:00", "24:00")], 2026, 11, 18, zone))
    local = begins.astimezone(ZoneInfo(zone))
    assert (local.weekday(), local.hour, local.minute) == (2, 0, 0)
