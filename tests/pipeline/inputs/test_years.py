"""Years are parsed from every form a user writes, and wrong ones are refused with the rule."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_pipeline.errors import InputError
from geofm_pipeline.years import Years, parse_years


@pytest.mark.parametrize(
    ("value", "years"),
    [
        ("2019-2021", (2019, 2020, 2021)),
        ("2019,2021", (2019, 2021)),
        (" 2022 ", (2022,)),
        (2022, (2022,)),
        ([2019, 2021], (2019, 2021)),
        (["2019-2020", 2022, "2020"], (2019, 2020, 2022)),
        ("2021,2019-2020", (2019, 2020, 2021)),
    ],
)
def test_every_form_gives_sorted_distinct_years(value: str | int | list[str | int], years: tuple[int, ...]) -> None:
    """Text, numbers and lists of them name the same sorted years."""
    assert parse_years(value).years == years


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("2021-2019", "2019-2021"),
        ("2012", "2013-2100"),
        ("2101", "2013-2100"),
        ("last year", "'last year'"),
        ("", "''"),
        (True, "True"),
        ([], "no year"),
        (2022.0, "2022.0"),
        (None, "None"),
        ("2019-", "2019-"),
        ([True], "True"),
    ],
)
def test_wrong_years_are_refused_with_value_and_rule(value: object, part: str) -> None:
    """The message names the part at fault and how years are written."""
    with pytest.raises(InputError, match="years") as caught:
        parse_years(value)  # type: ignore[arg-type]
    assert part in str(caught.value)


@given(st.sets(st.integers(2013, 2100), min_size=1))
def test_text_round_trips_and_days_match_the_calendar(years: set[int]) -> None:
    """str() parses to the same years; a day is inside exactly when its calendar year is one of them."""
    parsed = Years(years=tuple(sorted(years)))
    assert parse_years(str(parsed)) == parsed
    days = np.arange(date(2012, 12, 30).toordinal(), date(2101, 1, 3).toordinal(), 7) - date(1970, 1, 1).toordinal()
    wanted = [date.fromordinal(int(d) + date(1970, 1, 1).toordinal()).year in years for d in days]
    assert parsed.contains_days(days).tolist() == wanted
    assert parsed.first_day == date(min(years), 1, 1).toordinal() - date(1970, 1, 1).toordinal()
    assert parsed.last_day == date(max(years), 12, 31).toordinal() - date(1970, 1, 1).toordinal()
    assert all(year in parsed for year in years)
