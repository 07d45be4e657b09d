"""Which class a combination of labels belongs to: rare combinations are pooled, from the last factor backwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Labels = tuple[str, ...]
"""One label per factor, in the order of the factors."""

ALL = "all"
"""Name of the only class where no factor tells cells apart."""
OTHER = "other"
"""Name of the class of everything rare, and of whatever an extension meets first."""
REST = "rest"
"""Last part of the name of a pooled class."""
_NAMED = 12  # members that a sentence names


def class_name(labels: Labels) -> str:
    """Name of a class of its own, such as `tree/c3`."""
    return "/".join(labels) or ALL


def collapse(sizes: Mapping[Labels, int], least: int) -> dict[Labels, str]:
    """Class of each combination, by its number of cells.

    One with at least `least` cells, or the only one, is a class of its own. The others are pooled over the last
    factor (`tree/c3/rest`) where that makes `least` cells, then over the last two (`tree/rest`) and so on; what is
    still too small is `other`.
    """
    table = {labels: class_name(labels) for labels, size in sizes.items() if size >= least or len(sizes) == 1}
    depth = max(map(len, sizes), default=0)
    for kept in range(depth - 1, 0, -1):
        pools: Counter[Labels] = Counter()
        for labels in sizes.keys() - table.keys():
            pools[labels[:kept]] += sizes[labels]
        for labels in sizes.keys() - table.keys():
            if pools[labels[:kept]] >= least:
                table[labels] = class_name((*labels[:kept], REST))
    return {labels: table.get(labels, OTHER) for labels in sorted(sizes)}


def merge_notes(table: Mapping[Labels, str], sizes: Mapping[Labels, int], least: int) -> list[str]:
    """One sentence per pooled class."""
    notes = []
    pools: dict[str, list[Labels]] = {}
    for labels, name in table.items():
        if name != class_name(labels):
            pools.setdefault(name, []).append(labels)
    for pooled, members in sorted(pools.items()):
        names = ", ".join(class_name(labels) for labels in members[:_NAMED])
        more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
        cells = sum(sizes[labels] for labels in members)
        notes.append(f"Classes with fewer than {least} cells were merged into {pooled}: {names}{more} ({cells} cells).")
    return notes
