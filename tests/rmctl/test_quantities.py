"""Amounts as people write them: exact round trips, and refusals that say what would be right."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rmctl.spec.errors import BadValue
from rmctl.spec.quantities import (
    MAX_BYTES,
    MAX_MILLICORES,
    MAX_SECONDS,
    format_cpu,
    format_duration,
    format_size,
    parse_cpu,
    parse_duration,
    parse_seconds,
    parse_size,
)


@given(st.integers(1, MAX_MILLICORES))
def test_cpu_round_trip(millicores: int) -> None:
    assert parse_cpu(format_cpu(millicores)) == millicores


@given(st.integers(0, MAX_BYTES))
@example(2**30)
def test_size_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert parse_size(size) == size


@given(st.integers(0, MAX_SECONDS * 1000))
@example(250)
def test_duration_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, abs_tol=1e-9)


@given(
    st.one_of(
        st.text(max_size=12), st.floats(), st.integers(), st.none(), st.lists(st.integers(), max_size=2)
    )
)
def test_a_parser_answers_or_refuses_and_never_breaks(value: object) -> None:
    for parse, highest in (
        (parse_cpu, MAX_MILLICORES),
        (parse_size, MAX_BYTES),
        (parse_duration, MAX_SECONDS),
    ):
        try:
            amount = parse(value)
        except BadValue as error:
            assert error.message and error.code  # noqa: PT017 - either outcome is right
        else:
            assert 0 <= amount <= highest


@pytest.mark.parametrize(
    ("value", "millicores"),
    [
        (2, 2000),
        (0.5, 500),
        ("500m", 500),
        ("0.5", 500),
        ("2", 2000),
        (0.1, 100),
        (0.0001, 1),
        (10_000, 10_000_000),
    ],
)
def test_cpu(value: object, millicores: int) -> None:
    assert parse_cpu(value) == millicores


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1024, 1024),
        ("512Mi", 512 * 2**20),
        ("2G", 2 * 10**9),
        ("1.5Gi", 3 * 2**29),
        ("1k", 1000),
        ("8MiB", 2**23),
    ],
)
def test_size(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1h30m", 5400), ("250ms", 1)],
)
def test_whole_seconds_are_rounded_up(value: object, seconds: int) -> None:
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "code", "hint"),
    [
        (-1, "negative", "500m"),
        ("-2", "negative", "500m"),
        (math.nan, "bad_quantity", "500m"),
        (math.inf, "bad_quantity", "500m"),
        (10_001, "absurd_quantity", "10,000 cores"),
        ("99999999", "absurd_quantity", "10,000 cores"),
        (0, "absurd_quantity", "at least 1m"),
        (True, "bad_quantity", "true"),
        ("two", "bad_quantity", '"two"'),
        ("", "bad_quantity", "500m"),
        (None, "bad_quantity", "null"),
        ([1], "bad_quantity", "a list"),
        ("1e3", "bad_quantity", "500m"),
    ],
)
def test_cpu_is_refused(value: object, code: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse_cpu(value)
    assert refused.value.code == code
    assert hint in refused.value.message


@pytest.mark.parametrize(
    ("value", "code", "hint"),
    [
        (2**53 + 1, "absurd_quantity", "8 Pi"),
        ("9Pi", "absurd_quantity", "8 Pi"),
        (-5, "negative", "512Mi"),
        ("512m", "bad_quantity", 'did you mean "512Mi"'),
        ("lots", "bad_quantity", "512Mi"),
        ("1 Mi Gi", "bad_quantity", "512Mi"),
        ("٣Mi", "bad_quantity", "512Mi"),
    ],
)
def test_size_is_refused(value: object, code: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse_size(value)
    assert refused.value.code == code
    assert hint in refused.value.message


@pytest.mark.parametrize("value", ["5 minutes", "5M", "", "-5m", "1y", math.inf, 400 * 86400, "h"])
def test_duration_is_refused(value: object) -> None:
    with pytest.raises(BadValue, match="90s"):
        parse_duration(value)
