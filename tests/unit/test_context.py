from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.errors import InvalidRequestError
from feedrank.features import expressions as context

MOMENTS = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.just(UTC),
)


@given(MOMENTS)
def test_hour_and_weekday_are_those_of_the_calendar(moment: datetime) -> None:
    time_s = moment.timestamp()
    assert context.hour({}, time_s) == moment.hour
    assert context.weekday({}, time_s) == moment.weekday()
    assert context.is_weekend({}, time_s) == float(moment.weekday() >= 5)


def test_the_last_moment_of_a_week_is_on_a_weekend_and_the_next_is_not() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    last = (monday - timedelta(microseconds=1)).timestamp()
    assert (context.is_weekend({}, last), context.hour({}, last)) == (1.0, 23)
    assert context.is_weekend({}, monday.timestamp()) == 0.0


@given(st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=20))
def test_whole_columns_give_what_single_requests_give(times: list[int]) -> None:
    column = np.array(times)
    devices = np.array(["mobile", "tablet"])[column % 2]
    temperatures = column / 7
    for name, values in (
        ("hour", [context.hour({}, time_s) for time_s in times]),
        ("weekday", [context.weekday({}, time_s) for time_s in times]),
        ("is_weekend", [context.is_weekend({}, time_s) for time_s in times]),
    ):
        assert context.CALENDAR[name]({}, column).tolist() == values
    mobile, number = context.equals("device", "mobile"), context.number("temp")
    whole = mobile({"device": devices}, column).tolist()
    assert whole == [mobile({"device": str(device)}, 0) for device in devices]
    whole = number({"temp": temperatures}, column).tolist()
    assert whole == [float(number({"temp": str(t)}, 0)) for t in temperatures.tolist()]


def test_equals_is_exact() -> None:
    mobile = context.equals("device", "mobile")
    values = [mobile({"device": text}, 0) for text in ("mobile", "Mobile", " mobile", "", "mob")]
    assert values == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("-3", -3.0), ("1e3", 1000.0), (" 7 ", 7.0), ("0", 0.0)]
)
def test_a_number_is_read(text: str, value: float) -> None:
    assert context.number("temp")({"temp": text}, 0) == value


@pytest.mark.parametrize(
    "text",
    ["", "warm", "nan", "-inf", "Infinity", "1e39", "-1e39", "1e400", "9" * 5_000, "1,5", "0x10"],
)
def test_a_text_that_is_not_a_finite_number_is_refused_by_its_key_alone(text: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        context.number("temp")({"temp": text}, 0)
    assert str(error.value) in {
        "context.temp must be a number",
        "context.temp must be a finite 32-bit number",
    }


def test_the_largest_float32_is_accepted() -> None:
    largest = repr(float(np.finfo(np.float32).max))
    assert np.isfinite(np.float32(context.number("temp")({"temp": largest}, 0)))


@pytest.mark.parametrize(
    ("expression", "example"),
    [
        ("hour", None),
        ("weekday", None),
        ("is_weekend", None),
        ("equals(device, mobile)", ("device", "mobile")),
        ("equals( device ,smart tv )", ("device", "smart tv")),
        ("number(temp)", ("temp", "1.5")),
        ("number( a b )", ("a b", "1.5")),
        ('equals(country, "DE")', ("country", "DE")),
        ("equals(country, 'DE')", ("country", "DE")),
        ('equals(city, "Paris, TX")', ("city", "Paris, TX")),
        ('equals("a (b)", \' "c" \')', ("a (b)", ' "c" ')),
        ("equals(brand, Levi's)", ("brand", "Levi's")),
        ('equals(device, "")', ("device", "")),
        ("number('a, b')", ("a, b", "1.5")),
    ],
)
def test_an_expression_says_which_key_it_reads(
    expression: str, example: tuple[str, str] | None
) -> None:
    parsed = context.parse(expression)
    assert (parsed.example, parsed.key) == (example, example and example[0])


def test_quotes_around_a_literal_are_not_part_of_it() -> None:
    german = context.parse('equals(country, "DE")').compute
    assert [german({"country": text}, 0) for text in ("DE", '"DE"', "FR")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "expression",
    ["", "Hour", "hour()", "equals(device)", "equals(,mobile)", "equals(a, b, c)", "number()",
     "number(a, b)", "number(a) ", "__import__(os)", "equals(a(b), c)", "equals(city, Paris, TX)",
     'equals(country, "DE)', 'equals(country, "DE" x)', 'equals("", DE)', "number('')"],
)  # fmt: skip
def test_another_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is none of.* goes in quotes, such as"):
        context.parse(expression)


def test_every_example_can_be_computed() -> None:
    for expression in ("equals(device, mobile)", "number(temp)"):
        parsed = context.parse(expression)
        assert parsed.example
        key, value = parsed.example
        assert float(parsed.compute({key: value}, 0)) in {1.0, 1.5}
