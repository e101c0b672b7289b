"""Line heads and times: against datetime for every day, with and without a year, over New Year and leap days."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdnsctl.logs import times
from kdnsctl.logs.klog import DAY, LATEST, SECOND, TextClock, decode, decode_object, json_time, parse
from kdnsctl.logs.times import epoch, from_datetime, rfc3339, to_datetime

YEARS = range(2014, 2101)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants it so


def stamp(moment: datetime) -> bytes:
    return moment.strftime("%m%d %H:%M:%S.%f").encode()


# --- year-less times


@pytest.mark.parametrize("year", YEARS)
def test_a_stamp_is_dated_in_the_year_before_its_reference_on_every_day_of_it(year: int) -> None:
    moment = datetime(year, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    while moment.year == year:
        clock = TextClock(from_datetime(moment))
        assert clock.time(stamp(moment)) == from_datetime(moment)
        before = moment - timedelta(days=300)
        assert clock.time(stamp(before)) == from_datetime(before)
        moment += timedelta(days=1)


@given(moments, st.timedeltas(timedelta(0), timedelta(days=364)))
def test_any_stamp_of_the_last_year_comes_out_as_it_was(written: datetime, age: timedelta) -> None:
    moment = written - age
    if (moment.month, moment.day) != (2, 29):
        assert TextClock(from_datetime(written)).time(stamp(moment)) == from_datetime(moment)


@given(moments)
def test_no_stamp_is_dated_more_than_a_day_after_its_reference(moment: datetime) -> None:
    reference = from_datetime(datetime(2026, 11, 23, 3, 4, 5, tzinfo=UTC))
    found = TextClock(reference).time(stamp(moment))
    assert found is not None
    assert reference - 8 * 366 * DAY < found <= reference + DAY + 60 * SECOND
    dated = to_datetime(found)
    assert dated is not None
    assert stamp(dated) == stamp(moment)


def test_a_log_that_runs_over_new_year_is_dated_in_two_years() -> None:
    clock = TextClock(from_datetime(datetime(2027, 1, 2, tzinfo=UTC)))
    assert clock.time(b"1231 23:59:59.999999") == from_datetime(datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    assert clock.time(b"0101 00:00:00.000000") == from_datetime(datetime(2027, 1, 1, tzinfo=UTC))


def test_a_clock_ahead_of_the_files_time_by_less_than_a_day_does_not_cost_a_year() -> None:
    clock = TextClock(from_datetime(datetime(2026, 12, 31, 23, 0, tzinfo=UTC)))
    assert clock.time(b"0101 05:00:00.000000") == from_datetime(datetime(2027, 1, 1, 5, tzinfo=UTC))
    assert clock.time(b"0102 05:00:00.000000") == from_datetime(datetime(2026, 1, 2, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("written", "year"),
    [(2024, 2024), (2025, 2024), (2027, 2024), (2028, 2024), (2103, 2096), (2104, 2096), (1899, 1896)],
)
def test_29_february_is_of_the_last_year_that_had_one(written: int, year: int) -> None:
    reference = datetime(written, 12 if written == 2024 else 1, 1, tzinfo=UTC)
    expected = from_datetime(datetime(year, 2, 29, tzinfo=UTC))
    assert TextClock(from_datetime(reference)).time(b"0229 00:00:00.000000") == expected


@pytest.mark.parametrize("year", [1999, 2023, 2024, 2100])
def test_with_a_year_every_stamp_is_in_it(year: int) -> None:
    clock = TextClock(from_datetime(datetime(2026, 11, 23, tzinfo=UTC)), year)
    assert clock.time(b"1231 23:59:59.000001") == from_datetime(datetime(year, 12, 31, 23, 59, 59, 1, tzinfo=UTC))
    leap = from_datetime(datetime(year, 2, 29, tzinfo=UTC)) if year == 2024 else None
    assert clock.time(b"0229 00:00:00.000000") == leap


@pytest.mark.parametrize(
    "text",
    [
        b"0000 00:00:00.000000",
        b"1301 00:00:00.000000",
        b"0230 00:00:00.000000",
        b"0431 00:00:00.000000",
        b"0101 24:00:00.000000",
        b"0101 00:60:00.000000",
        b"0101 00:00:x0.000000",
        b"0101 00:00: 1.000000",
        b"0101 00:00:+1.000000",
        b"0101 00:00:01.1_0000",
        b"01_1 00:00:00.000000",
        b"0101_00:00:00.000000",
        b"",
        b"\xff" * 20,
    ],
)
def test_what_is_no_moment_has_no_time(text: bytes) -> None:
    clock = TextClock(from_datetime(datetime(2026, 11, 23, tzinfo=UTC)))
    assert clock.time(text) is None
    assert clock.time(b"0606 16:49:46.155398") is not None
    assert clock.time(text) is None


@pytest.mark.parametrize("reference", [-(10**15), 0, 1, LATEST, LATEST + 100 * DAY])
def test_a_reference_at_the_ends_of_the_calendar_does_not_raise(reference: int) -> None:
    for text in (b"0101 00:00:00.000000", b"0229 00:00:00.000000", b"1231 23:59:59.999999"):
        found = TextClock(reference).time(text)
        assert found is None or found <= reference + 2 * DAY


def test_the_memory_of_a_clock_is_bounded() -> None:
    clock = TextClock(from_datetime(datetime(2026, 11, 23, tzinfo=UTC)))
    for day in range(1, 29):
        for month in range(1, 13):
            for minute in range(0, 1440, 4):
                clock.time(b"%02d%02d %02d:%02d:00.000000" % (month, day, minute // 60, minute % 60))
    assert len(clock._minutes) <= 100_001
    assert clock.time(b"0606 16:49:46.155398") == from_datetime(datetime(2026, 6, 6, 16, 49, 46, 155_398, tzinfo=UTC))


# --- dated times


@given(moments, st.integers(0, 9), st.sampled_from("T "), st.sampled_from(".,"), st.integers(-14 * 60, 14 * 60))
def test_rfc3339_and_its_relatives_are_read_as_datetime_reads_them(
    moment: datetime, decimals: int, between: str, point: str, offset: int
) -> None:
    zone = timezone(timedelta(minutes=offset))
    nanoseconds = f"{moment.microsecond:06}123"[:decimals]
    expected = moment.replace(microsecond=int(nanoseconds[:6].ljust(6, "0") or 0))
    local = moment.astimezone(zone)
    text = local.strftime(f"%Y-%m-%d{between}%H:%M:%S") + (point + nanoseconds if decimals else "")
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    for written in (f"{sign}{minutes // 60:02}:{minutes % 60:02}", f"{sign}{minutes // 60:02}{minutes % 60:02}"):
        assert rfc3339((text + written).encode()) == from_datetime(expected)
        assert rfc3339((text + " " + written).encode()) == from_datetime(expected)
    in_utc = moment.strftime(f"%Y-%m-%d{between}%H:%M:%S") + (point + nanoseconds if decimals else "")
    for written in ("Z", "", "UTC", " UTC"):
        for _ in range(2):  # the second time its minute is remembered
            assert rfc3339((in_utc + written).encode()) == from_datetime(expected)


@pytest.mark.parametrize(
    "text",
    [
        b"2024-06-06T16:49:46.Z",
        b"2024-06-06T16:49:46.15_5Z",
        b"2024-06-06T16:49: 6.155Z",
        b"2024-06-06T16:49:+6.155Z",
        b"2024-06-06T16:49x46.155Z",
        b"2024-06-06T16:49:4.6155Z",
        b"2024-06-06T16:49Z",
        b"2024-02-30T16:49:46Z",
        b"2024-13-01T16:49:46Z",
        b"0000-01-01T00:00:00Z",
        b"2024-06-06 16:49:46 CEST",
        b"20240606T164946Z",
        b"x2024-06-06T16:49:46Z",
        b"2024-06-06T16:49:46Zx",
        b"",
        b"Z",
        b"\xff" * 30,
    ],
)
def test_what_is_no_time_is_none_also_where_its_minute_is_known(text: bytes) -> None:
    assert rfc3339(b"2024-06-06T16:49:46.155486643Z") == from_datetime(
        datetime(2024, 6, 6, 16, 49, 46, 155_486, tzinfo=UTC)
    )
    assert rfc3339(text) is None


@pytest.mark.parametrize(
    "text",
    [b"0001-01-01T00:00:00Z", b"0001-01-01T00:00:00+14:00", b"1969-12-31T23:59:59Z", b"9999-12-31T23:59:59-14:00"],
)
def test_an_unset_time_and_one_outside_the_calendar_are_no_time(text: bytes) -> None:
    assert rfc3339(text) is None


def test_a_leap_second_is_the_next_minute() -> None:
    assert rfc3339(b"2016-12-31T23:59:60Z") == from_datetime(datetime(2017, 1, 1, tzinfo=UTC))


def test_the_memory_of_minutes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_minutes", {b"%017d" % number: number for number in range(100_001)})
    assert rfc3339(b"2024-06-06T16:49:46Z") is not None
    assert list(times._minutes) == [b"2024-06-06T16:49:"]


@given(st.datetimes(datetime(1980, 1, 1), timezones=st.just(UTC)).filter(lambda moment: moment.year < 5000))  # noqa: DTZ001 - as above
def test_a_number_is_taken_for_the_unit_that_its_size_tells(moment: datetime) -> None:
    exact = from_datetime(moment)
    assert epoch(exact // SECOND) == exact // SECOND * SECOND
    assert epoch(exact // 1000) == exact // 1000 * 1000
    assert epoch(exact) == exact
    assert epoch(exact * 1000 + 999) == exact


@pytest.mark.parametrize("number", [0, -1, 1e20, math.inf, math.nan, -math.inf])
def test_a_number_that_is_no_time_is_none(number: float) -> None:
    assert epoch(number) is None


def test_seconds_with_decimals_keep_their_microseconds() -> None:
    assert epoch(1795403011.238869) == 1795403011238869
    assert epoch(1795403011238.869) == 1795403011238869


@given(st.datetimes(timezones=st.just(UTC)))
def test_datetimes_survive_the_way_there_and_back(moment: datetime) -> None:
    assert to_datetime(from_datetime(moment)) == moment


def test_no_time_is_no_datetime() -> None:
    assert to_datetime(None) is None


# --- JSON times


@given(st.integers(1, LATEST - 1), st.integers(0, 999_999))
@example(1795403011238660, 0)
@example(1795400883132109, 400_000)
def test_json_milliseconds_keep_their_microseconds(microseconds: int, rest: int) -> None:
    text = format(Decimal(microseconds) / 1000 + Decimal(rest) / 1_000_000_000, "f").rstrip("0").rstrip(".")
    assert json_time(text.encode()) == microseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1795403011238", 1795403011238000),
        (b"1795403011238.", 1795403011238000),
        (b"1.795403011238e12", 1795403011238000),
        (b"1.795403011238E+12", 1795403011238000),
        (b"0", None),
        (b"-1", None),
        (b"1e400", None),
        (b"9" * 5000, None),
        (b"253402300799000", None),
        (b"1_0", None),
        (b"", None),
        (b".", None),
        (b"1.2.3", None),
        (b"nan", None),
        (b"x", None),
    ],
)
def test_json_times(text: bytes, expected: int | None) -> None:
    assert json_time(text) == expected


# --- heads


@given(
    st.sampled_from("IWEF"),
    moments,
    st.integers(0, 99_999_999),
    st.from_regex(r"([a-z0-9_.-]{1,9}/){0,3}[a-zA-Z0-9_.-]{1,30}\.go", fullmatch=True),
    st.integers(0, 99_999),
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=60),
)
def test_a_text_head_is_taken_apart(
    severity: str, moment: datetime, thread: int, file: str, line: int, rest: str
) -> None:
    header = f"{severity}{stamp(moment).decode()} {thread:7d} {file}:{line}] "
    head = parse((header + rest).encode())
    assert head is not None
    assert head.stamp == stamp(moment)
    assert head.file == file.rpartition("/")[2].encode()
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"( |$)', rest, re.DOTALL)
    if quoted:
        assert (head.structured, head.message) == (True, quoted[1].encode())
        assert head.end == len((header + quoted[0].rstrip(" ")).encode())
    else:
        assert (head.structured, head.message) == (False, rest.encode())
    assert not head.is_json


@pytest.mark.parametrize(
    ("payload", "stamp_", "message"),
    [
        (b'{"ts":1.5,"caller":"a/b.go:1","msg":"x"}', b"1.5", b"x"),
        (b'{"ts":1.5,"caller":"b.go:1","msg":"a\\"b","v":0}', b"1.5", rb"a\"b"),
        (b'{"ts": 1.5, "caller": "a/b.go:1", "msg": "a\\"b"}', b"1.5", b'a"b'),
        (b'{"ts":1.5,"logger":"x","caller":"a/c/b.go:1","msg":"x"}', b"1.5", b"x"),
        (b'{"msg":"x","caller":"a/b.go:1","ts":3}', b"3", b"x"),
        (b'{"msg":"\xff","caller":"a/b.go:1","ts":3}', b"3", "\ufffd".encode()),
        (b'{"msg":"\\ud800","caller":"a/b.go:1","ts":3}', b"3", b"?"),
        (b'{"msg":"\x01","caller":"a/b.go:1","ts":3}', b"3", b"\x01"),
    ],
)
def test_a_json_head_is_taken_apart_in_any_order_of_keys(payload: bytes, stamp_: bytes, message: bytes) -> None:
    head = parse(payload)
    assert head is not None
    assert (head.stamp, head.file, head.message, head.structured, head.is_json) == (
        stamp_,
        b"b.go",
        message,
        None,
        True,
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b'"x"',
        b'{"ts":1,"caller":"a/b.go:1"}',
        b'{"ts":1,"msg":"x"}',
        b'{"ts":1,"caller":"","msg":"x"}',
        b'{"ts":1,"caller":"b.go","msg":"x"}',
        b'{"ts":1,"caller":5,"msg":"x"}',
        b'{"ts":"1","caller":"b.go:1","msg":"x"}',
        b'{"ts":true,"caller":"b.go:1","msg":"x"}',
        b'{"level":"info","ts":1,"caller":"b.go:1","msg":"x"}',
        b'{"ts":' + b"9" * 5000 + b',"caller":5,"msg":"x"}',
        b'{"a":' * 100_000,
        b"X0606 16:49:46.155398       1 a.go:1] x",
        b"E0606 16:49:46.15539       1 a.go:1] x",
        b"E0606 16:49:46.155398 a.go:1] x",
        b"E0606 16:49:46.155398       1 a.py:1] x",
        b"E0606 16:49:46.155398       1 a.go:x] x",
        b"E0606 16:49:46.155398       1 " + b"a/" * 21 + b"a.go:1] x",
        b" E0606 16:49:46.155398       1 a.go:1] x",
    ],
    ids=lambda payload: payload[:50].decode(),
)
def test_what_is_no_record_has_no_head(payload: bytes) -> None:
    assert parse(payload) is None


@given(st.binary(max_size=200))
@example(b'{"a":1e999}')
@example(b'{"a":' + b"1" * 5000 + b"}")
@example(b"[" * 100_000)
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    assert decode_object(data) is None or isinstance(decode(data), dict)
    parse(data)
    parse(b"{" + data)
