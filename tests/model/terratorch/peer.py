"""One forward and backward pass of TerraTorch's PrithviMAE. Needs none of our packages; talks by files.

    python tests/model/terratorch/peer.py FOLDER

FOLDER/request.json: `variant` and `arguments` of TerraTorch's builder, `load`, `gradients`, and `alone` for the encoder
alone, as TerraTorch builds backbones, of which `features` are the only output.
FOLDER/input.safetensors: `image` [b, c, t, h, w], `noise` [b, n] whose lowest are seen, and with metadata
`temporal_coords` [b, t, 2] (year, day from 0) and `location_coords` [b, 2] (lat, lon).

With `load` TerraTorch itself loads FOLDER/model.pt and must not complain; else the weights are random and written
there. FOLDER/output.safetensors: `loss`, `predicted` [b, n, numbers], `mask` [b, n] (1 is hidden), `features`
[b, 1 + n, width] of the encoder that sees all, and `gradient.NAME` of every parameter.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from import_prithvi import prithvi_vit
from safetensors.torch import load_file, save_file


class Complaints(logging.Handler):
    """Collects TerraTorch's warnings: it loads whatever fits of a file, and logs the rest."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def built(request: dict[str, Any], weights: Path) -> tuple[torch.nn.Module, Callable[..., list[torch.Tensor]]]:
    """(model, features of its layers), with the weights of a file, or with random ones that are written to it."""
    build = partial(prithvi_vit()._create_prithvi, request["variant"], **request["arguments"])
    if request["load"]:
        load = {"pretrained": True, "ckpt_path": str(weights)}
        encoder = build(encoder_only=True, **load)
        if request["alone"]:
            return encoder, encoder
        model = build(encoder_only=False, **load)
        compare(model, torch.load(weights, weights_only=True))
        return model, encoder
    torch.manual_seed(1)
    model = build(encoder_only=False)
    with torch.no_grad():  # no weight at 0 or 1, so that each counts
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    torch.save(model.state_dict(), weights)
    return model, model.forward_features


def compare(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Everything of the file is in the model, and the other way round; TerraTorch's own positions are the file's."""
    found = model.state_dict()
    assert found.keys() == state.keys(), found.keys() ^ state.keys()
    for name, value in found.items():
        if "pos_embed" in name:
            torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6)
        else:
            assert torch.equal(value, state[name]), name
    model.load_state_dict(state, strict=True)


def main() -> None:
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    given = load_file(folder / "input.safetensors")
    image, noise = given.pop("image"), given.pop("noise")
    complaints = Complaints()
    logging.getLogger("terratorch").addHandler(complaints)
    model, features = built(request, folder / "model.pt")
    if complaints.found:
        raise SystemExit("\n".join(complaints.found))
    with torch.no_grad():
        seen_all = features(image, **given)[-1]
    if request["alone"]:
        save_file({"features": seen_all.contiguous()}, folder / "output.safetensors")
        return
    model.encoder.random_masking = partial(model.encoder.random_masking, noise=noise)
    with torch.set_grad_enabled(request["gradients"]):
        loss, pixels, hidden = model(image, **given)
    out = {
        "loss": loss["loss"].detach(),
        "features": seen_all,
        "predicted": model.patchify(pixels.detach()),
        "mask": model.patchify(hidden.unsqueeze(1).expand_as(image)).amax(dim=-1),
    }
    if request["gradients"]:
        loss["loss"].backward()
        out |= {f"gradient.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    save_file({name: value.contiguous() for name, value in out.items()}, folder / "output.safetensors")


if __name__ == "__main__":
    main()
