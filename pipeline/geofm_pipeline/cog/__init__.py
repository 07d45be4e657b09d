"""Reads blocks of Cloud-Optimised GeoTIFFs: exactly the bytes a chip needs, each checked, none invented."""

from geofm_pipeline.cog.reader import BlockChipReader, WindowReader
from geofm_pipeline.cog.source import ArchiveSource, ByteSource, FetchError, HttpOptions, HttpSource, LocalSource

__all__ = [
    "ArchiveSource",
    "BlockChipReader",
    "ByteSource",
    "FetchError",
    "HttpOptions",
    "HttpSource",
    "LocalSource",
    "WindowReader",
]
