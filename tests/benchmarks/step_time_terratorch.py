"""TerraTorch's side of step_time.py; needs none of our packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_time_loop import serve
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model" / "terratorch"))

from import_prithvi import prithvi_mae

PRITHVI = prithvi_mae()


def build(cell: dict[str, Any]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """See :data:`step_time_loop.Build`; built at the very size and number of dates, so that nothing is interpolated."""
    width, depth, heads = cell["decoder"]
    model: nn.Module = PRITHVI.PrithviMAE(
        img_size=cell["size"],
        num_frames=cell["dates"],
        embed_dim=cell["width"],
        depth=cell["depth"],
        num_heads=cell["heads"],
        decoder_embed_dim=width,
        decoder_depth=depth,
        decoder_num_heads=heads,
    )

    def loss_of(image: Tensor) -> Tensor:
        loss: Tensor = model(image)[0]["loss"]
        return loss

    return model, loss_of


if __name__ == "__main__":
    serve(build, (0, 2, 1, 3, 4))
