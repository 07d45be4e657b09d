"""TerraTorch's files of Prithvi, unchanged, without the rest of TerraTorch. Needs none of our packages.

`import terratorch` imports all its datasets and tasks, and with them GDAL, Lightning, scikit-learn and 3 GB more. So
its packages are stood in for by empty ones that lead to the same folders: a module imports its siblings as ever, and
what a package's own __init__ would have gathered is gathered here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

_PARTS = ("models", "models.backbones", "datasets", "registry")
_PACKAGES = ("terratorch", *(f"terratorch.{part}" for part in _PARTS))
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # lives as long as the process


def prithvi_mae() -> ModuleType:
    """terratorch.models.backbones.prithvi_mae: the model."""
    if "terratorch" not in sys.modules:
        _stand_in()
        _declare_operators()
    return importlib.import_module("terratorch.models.backbones.prithvi_mae")


def prithvi_vit() -> ModuleType:
    """terratorch.models.backbones.prithvi_vit: its variants by name, and how it loads files."""
    prithvi_mae()
    for name, parts in (("rasterio", ()), ("sklearn", ()), ("sklearn.decomposition", ("PCA",))):  # of its pictures
        module = ModuleType(name)
        for part in parts:
            setattr(module, part, object)
        sys.modules[name] = module
    for package, source in (("datasets", "utils"), ("registry", "registry")):
        found = importlib.import_module(f"terratorch.{package}.{source}")
        for name, value in vars(found).items():
            if name.endswith(("Bands", "_REGISTRY")):
                setattr(sys.modules[f"terratorch.{package}"], name, value)
    return importlib.import_module("terratorch.models.backbones.prithvi_vit")


def _stand_in() -> None:
    found = importlib.util.find_spec("terratorch")  # finds without importing
    assert found, "no terratorch on the path"
    assert found.submodule_search_locations
    above = Path(found.submodule_search_locations[0]).parent
    for name in _PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(above.joinpath(*name.split(".")))]
        sys.modules[name] = package


def _declare_operators() -> None:
    """torchvision's wheel is compiled for CUDA: beside torch for the CPU its operators are missing, and it wants to
    describe two of them as soon as it is imported. Nobody calls them.
    """
    library = next(Path(next(iter(_of("torchvision")))).glob("_C*"), None)
    try:
        torch.ops.load_library(str(library))
    except OSError:
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _of(package: str) -> list[str]:
    found = importlib.util.find_spec(package)
    assert found, f"no {package} on the path"
    return list(found.submodule_search_locations or ())
