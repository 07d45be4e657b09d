"""A byte source that remembers the head and the size of files, for files that are opened again and again.

A tile's rasters are opened twice (for their overviews, then at one of them), and neighbouring tiles open the same ones:
each file costs two requests for that, not four per tile. Holds at most FILES heads, 8 MB.
"""

from __future__ import annotations

from collections import OrderedDict

from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.access.tally import Tally

HEAD = 32_768
"""Bytes from the start: the directories of a cloud-optimised GeoTIFF."""
FILES = 256


class Remembering:
    """Implements ByteSource over another one; for one thread."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._heads: OrderedDict[str, bytes] = OrderedDict()
        self._sizes: dict[str, int] = {}

    @property
    def tally(self) -> Tally:
        """See ByteSource."""
        return self._source.tally

    def read(self, href: str, start: int, length: int) -> bytes:
        """See ByteSource."""
        if start + length > HEAD:
            return self._source.read(href, start, length)
        if href not in self._heads:
            self._heads[href] = self._source.read(href, 0, HEAD)
            if len(self._heads) > FILES:
                self._heads.popitem(last=False)
        return self._heads[href][start : start + length]

    def read_all(self, href: str) -> bytes:
        """See ByteSource."""
        return self._source.read_all(href)

    def size(self, href: str) -> int:
        """See ByteSource."""
        if href not in self._sizes:
            self._sizes[href] = self._source.size(href)
        return self._sizes[href]

    def twin(self) -> Remembering:
        """See ByteSource; it remembers nothing yet."""
        return Remembering(self._source.twin())

    def stop(self) -> None:
        """See ByteSource."""
        self._source.stop()

    def at_once(self, href: str, *, local: int) -> int:
        """See ByteSource."""
        return self._source.at_once(href, local=local)
