"""A deterministic stand-in for the HLS archive: real COGs, items, land cover and weather of an invented world.

The world is a function of UTM position and time, never of the tile, so neighbouring tiles of one zone agree bit for
bit where they overlap. Everything follows from one seed.
"""

from geofm_pipeline.simulator.archive import Archive, build_archive, open_archive, truth_surface
from geofm_pipeline.simulator.demo import DEMO_REGION, benchmark_spec, demo_archive, demo_spec, simulate
from geofm_pipeline.simulator.spec import FAULTS, ArchiveSpec, Extent

__all__ = [
    "DEMO_REGION",
    "FAULTS",
    "Archive",
    "ArchiveSpec",
    "Extent",
    "benchmark_spec",
    "build_archive",
    "demo_archive",
    "demo_spec",
    "open_archive",
    "simulate",
    "truth_surface",
]
