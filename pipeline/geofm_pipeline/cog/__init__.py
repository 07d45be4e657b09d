"""Reads blocks of Cloud-Optimised GeoTIFFs: exactly the bytes a chip needs, each checked, none invented."""
