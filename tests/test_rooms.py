"""The walls of the house: each room imports in a process that has only what the room may use."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = {
    "geofm_sampling": (
        *("geofm_pipeline", "geofm_model", "dask", "distributed", "rasterio", "xarray", "zarr", "torch"),
        *("pystac_client", "matplotlib", "geopandas"),
    ),
    "geofm_pipeline": ("geofm_model", "torch", "torchvision", "lightning"),
    "geofm_model": (
        *("geofm_pipeline", "geofm_sampling", "dask", "distributed", "rasterio", "rioxarray", "xarray"),
        *("pystac", "pystac_client", "geopandas", "shapely", "pyproj", "matplotlib"),
    ),
}

_SCRIPT = """
import importlib, pkgutil, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is on the other side of the wall")

room, *BLOCKED = sys.argv[1:]
sys.meta_path.insert(0, Wall())
package = importlib.import_module(room)
for module in pkgutil.walk_packages(package.__path__, room + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith(room)]))
"""


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_without_the_others_packages(room: str) -> None:
    """Every module of a room imports where the other rooms and their heavy packages do not exist."""
    command = [sys.executable, "-c", _SCRIPT, room, *FORBIDDEN[room]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


def test_the_wall_holds() -> None:
    """The check itself: a room that needs a blocked package fails to import."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "geofm_sampling", "numpy"], capture_output=True, text=True, check=False
    )
    assert "other side of the wall" in done.stderr
