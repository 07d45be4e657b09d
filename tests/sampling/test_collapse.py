"""Which rare classes are pooled with which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.collapse import OTHER, collapse, merge_notes


def test_collapse_by_hand() -> None:
    """Rare combinations are pooled over the last factor, then over the last two, then into `other`."""
    sizes: dict[tuple[str, ...], int] = {
        ("a", "x", "1"): 20,
        ("a", "x", "2"): 6,
        ("a", "x", "3"): 5,
        ("a", "y", "1"): 4,
        ("a", "z", "1"): 7,
        ("b", "x", "1"): 3,
        ("c", "x", "1"): 10,
    }
    assert collapse(sizes, 10) == {
        ("a", "x", "1"): "a/x/1",
        ("a", "x", "2"): "a/x/rest",
        ("a", "x", "3"): "a/x/rest",
        ("a", "y", "1"): "a/rest",
        ("a", "z", "1"): "a/rest",
        ("b", "x", "1"): OTHER,
        ("c", "x", "1"): "c/x/1",
    }
    assert collapse({("a",): 1}, 10) == {("a",): "a"}
    assert collapse({("a",): 1, ("b",): 2}, 10) == {("a",): OTHER, ("b",): OTHER}
    assert collapse({(): 3}, 10) == {(): "all"}


@given(
    sizes=st.dictionaries(st.tuples(*[st.sampled_from("abc")] * 3), st.integers(1, 40), min_size=1),
    least=st.integers(1, 60),
)
def test_every_class_is_filled_or_other(sizes: dict[tuple[str, ...], int], least: int) -> None:
    """All combinations have a class; every class but `other` holds `least` cells, unless there is one combination."""
    table = collapse(sizes, least)
    assert set(table) == set(sizes)
    total: dict[str, int] = {}
    for labels, name in table.items():
        total[name] = total.get(name, 0) + sizes[labels]
        assert name == OTHER or "/".join(labels).startswith(name.removesuffix("/rest"))
    assert len(sizes) == 1 or all(size >= least for name, size in total.items() if name != OTHER)


def test_what_was_merged_is_said() -> None:
    """One sentence per pooled class names its members, twelve of many."""
    sizes: dict[tuple[str, ...], int] = {("a", f"x{k}"): 2 for k in range(10, 30)}
    sizes |= {("b", "y"): 9, ("c", "z"): 1}
    assert merge_notes(collapse(sizes, 9), sizes, 9) == [
        f"Classes with fewer than 9 cells were merged into a/rest: {', '.join(f'a/x{k}' for k in range(10, 22))} and 8 "
        "more (40 cells).",
        "Classes with fewer than 9 cells were merged into other: c/z (1 cells).",
    ]
