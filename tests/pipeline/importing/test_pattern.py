"""Path patterns: which files match and what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.pattern import PathPattern, as_date, parse_day


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_fields_are_read_from_folders_and_names(tmp_path: Path) -> None:
    """Wildcards stay within a folder or name, fields are kept, a counted field takes that many characters."""
    _touch(
        tmp_path,
        "LT50130311985100-SC1/LT50130311985100XXX04_sr_band1.tif",
        "LT50130311985100-SC1/LT50130311985100XXX04_sr_band7.tif",
        "LT50130311985100-SC1/LT50130311985100XXX04_cfmask.tif",
        "LT50130311985100-SC1/deeper/LT50130311985100XXX04_sr_band1.tif",
    )
    pattern = PathPattern.parse(f"{tmp_path}/*/L??{{place:6}}{{date:%Y%j}}*_sr_band{{band}}.tif")
    found = pattern.find()
    assert pattern.root == tmp_path
    assert pattern.fields == ("place", "date", "band")
    assert [dict(file.fields) for file in found] == [
        {"place": "013031", "date": "1985100", "band": band} for band in ("1", "7")
    ]
    assert as_date(pattern.day("1985100") or 0) == "1985-04-10"


def test_any_depth_and_fields_that_must_agree(tmp_path: Path) -> None:
    """`**/` is any number of folders, also none; a field in folder and name is the same text in both."""
    _touch(tmp_path, "x/lake/lake_1.tif", "x/lake/moor_2.tif", "lake/lake_3.tif", "x/[a]/[a]_4.tif")
    found = PathPattern.parse(f"{tmp_path}/**/{{place}}/{{place}}_?.tif").find()
    assert [(file.path.relative_to(tmp_path).as_posix(), file.fields["place"]) for file in found] == [
        ("lake/lake_3.tif", "lake"),
        ("x/[a]/[a]_4.tif", "[a]"),
        ("x/lake/lake_1.tif", "lake"),
    ]


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Braces and asterisks in the name of a folder that is there are no fields and no wildcards."""
    _touch(tmp_path, "{b}*/x.tif", "ab/x.tif")
    found = PathPattern.of_folder(tmp_path / "{b}*").find()
    assert [file.path for file in found] == [tmp_path / "{b}*" / "x.tif"]


def test_a_field_takes_as_much_as_it_can(tmp_path: Path) -> None:
    """saclay_w_1.tif is of saclay_w, not of saclay."""
    _touch(tmp_path, "saclay_w_1.tif", "saclay_e_2.tif", "pisa_1.tif")
    found = PathPattern.parse(f"{tmp_path}/{{place}}_?.tif").find()
    assert [file.fields["place"] for file in found] == ["pisa", "saclay_e", "saclay_w"]


@pytest.mark.parametrize(
    ("format_", "text", "day"),
    [
        (None, "20220131", "2022-01-31"),
        (None, "2022-01-31", "2022-01-31"),
        ("%Y%j", "2022031", "2022-01-31"),
        ("%d%b%y", "31Jan22", "2022-01-31"),
        ("%Y%m%dT%H%M%S", "20220131T235959", "2022-01-31"),
    ],
)
def test_dates_in_names(tmp_path: Path, format_: str | None, text: str, day: str) -> None:
    """A date is 20220131 or 2022-01-31, or what strptime's codes say."""
    _touch(tmp_path, f"a_{text}.tif")
    pattern = PathPattern.parse(f"{tmp_path}/a_{{date{'' if format_ is None else ':' + format_}}}.tif")
    (found,) = pattern.find()
    number = pattern.day(found.fields["date"])
    assert number is not None
    assert as_date(number) == day


@pytest.mark.parametrize(
    ("text", "day"),
    [("2022:01:31 10:00:00", 19_023), ("2022-01-31T10:00:00Z", 19_023), ("20220231", None), ("202201311", None)],
)
def test_dates_in_tags(text: str, day: int | None) -> None:
    """A time behind the day is passed over; a day that no calendar has is none."""
    assert parse_day(text) == day


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a/{place.tif", "a field is {name}"),
        ("a/{}.tif", "a field is {name}"),
        ("a/{place:x}.tif", "a number of characters"),
        ("a/{date:%Q}.tif", "the codes %Y"),
    ],
)
def test_a_pattern_that_cannot_be_says_why(text: str, fragment: str) -> None:
    """The message names the pattern and the form that a field has."""
    with pytest.raises(InputError, match="tif") as error:
        PathPattern.parse(text).find()
    assert fragment in str(error.value)
