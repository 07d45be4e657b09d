"""Bookkeeping of one query's pages: what arrived is counted by distinct id, since services repeat items and pages."""

from __future__ import annotations

from collections.abc import Iterable

from geofm_pipeline.errors import ArchiveError


class Arrived:
    """The distinct ids of one query so far, about 150 bytes each.

    Parameters
    ----------
    service : how messages name it
    things : what it delivers, in the plural
    """

    def __init__(self, service: str, things: str) -> None:
        self._service, self._things = service, things
        self._ids: set[str] = set()

    @property
    def count(self) -> int:
        """Distinct ids."""
        return len(self._ids)

    def page(self, ids: Iterable[str], matched: int | None) -> None:
        """Take note of a page that has items; `matched` is how many the service says there are.

        Raises
        ------
        ArchiveError
            When none of them is new, so that the pages may never end, or when there are more than matched.
        """
        before = self.count
        self._ids.update(ids)
        if self.count == before:
            total = "?" if matched is None else f"{matched:,}"
            raise ArchiveError(
                f"{self._service} sent the same page twice after {before:,} of {total} {self._things}: its paging is "
                "broken, so no search there can be complete; try again later or use another --catalog"
            )
        if matched is not None and self.count > matched:
            raise self.incomplete(f"{matched:,}")

    def incomplete(self, matched: str) -> ArchiveError:
        """The error of a search whose count is not the one that the service matched."""
        return ArchiveError(
            f"{self._service} matched {matched} {self._things} but delivered {self.count:,}: the search is incomplete; "
            "run the same command again, or use another --catalog if it persists"
        )
