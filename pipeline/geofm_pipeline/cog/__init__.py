"""Reads blocks of Cloud-Optimised GeoTIFFs: exactly the bytes a chip needs, each checked, none invented."""

from geofm_pipeline.cog.reader import BlockChipReader, WindowReader

__all__ = ["BlockChipReader", "WindowReader"]
