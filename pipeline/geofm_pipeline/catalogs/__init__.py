"""Catalogues: services by name and dialects by file, all of which give the same SceneTable for the same granules."""

from geofm_pipeline.catalogs.resolve import find_scenes
from geofm_pipeline.catalogs.rows import facts, skipped

__all__ = ["facts", "find_scenes", "skipped"]
