"""Catalogue dialects: each file reads one and gives the same SceneTable for the same granules."""

from geofm_pipeline.catalogs.resolve import find_scenes
from geofm_pipeline.catalogs.rows import skipped

__all__ = ["find_scenes", "skipped"]
