"""Our masked autoencoder is TerraTorch's: predictions, loss and every gradient, with weights carried either way."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from geofm_model.exchange import Description, read_prithvi, to_prithvi, write_prithvi
from geofm_model.exchange.prithvi_config import config_of
from geofm_model.models import (
    SIZES,
    DecoderConfig,
    EncoderConfig,
    MaskedAutoencoder,
    MaskPlan,
    Metadata,
    Patching,
    chosen,
    hidden_errors,
    patches,
    seen_count,
)
from geofm_model.training.pixel_statistics import PixelStatistics

from .terratorch.environment import IndexUnreachableError, beside, terratorch_packages

PEER = Path(__file__).parent / "terratorch" / "peer.py"
BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
Peer = Callable[..., dict[str, Tensor]]

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="session")
def packages() -> Path:
    """TerraTorch's packages; skipped where there is no way to them."""
    try:
        return terratorch_packages()
    except IndexUnreachableError as error:
        pytest.skip(f"TerraTorch is not installed and pip reaches no index: {str(error)[-300:]}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The same task for both."""

    description: Description
    image: Tensor
    """[b, t, c, h, w]."""
    noise: Tensor
    """[b, n], all different; the lowest are seen."""
    metadata: Metadata | None

    def plan(self) -> MaskPlan:
        """Which tokens are seen."""
        order = self.noise.argsort(dim=1)
        keep = seen_count(order.shape[1], 0.75)
        return MaskPlan(seen=order[:, :keep].sort(dim=1).values, hidden=order[:, keep:].sort(dim=1).values)

    def tensors(self) -> dict[str, Tensor]:
        """As TerraTorch takes it: [b, c, t, h, w], (year, day), (lat, lon)."""
        found = {"image": self.image.transpose(1, 2).contiguous(), "noise": self.noise}
        if when := self.metadata:
            found["temporal_coords"] = torch.stack([when.year, when.day], dim=-1)
            found["location_coords"] = torch.stack([when.lat, when.lon], dim=-1)
        return found


def case(encoder: EncoderConfig, decoder: DecoderConfig, *, size: int, dates: int, b: int = 2) -> Case:
    """Random numbers of a network's shape."""
    statistics = PixelStatistics(bands=BANDS, mean=(1000.0,) * 6, std=(2000.0,) * 6)
    description = Description(encoder=encoder, decoder=decoder, statistics=statistics, size=size, dates=dates)
    torch.manual_seed(2)
    n = description.grid[0] * description.grid[1] * description.grid[2]
    when = Metadata(
        year=torch.tensor([[2019.0, 2020, 2022, 2023][:dates]] * b),
        day=torch.tensor([[3.0, 180, 364, 90][:dates]] * b),
        lat=torch.linspace(-33.5, 46.5, b),
        lon=torch.linspace(9.25, -70.5, b),
        kept=torch.ones(b, dtype=torch.bool),
    )
    return Case(
        description=description,
        image=torch.randn(b, dates, 6, size, size),
        noise=torch.stack([torch.randperm(n) for _ in range(b)]) / n,
        metadata=when if encoder.metadata else None,
    )


def network(description: Description) -> MaskedAutoencoder:
    """With no weight at 0 or 1, so that each counts."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(description.encoder, description.decoder)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def theirs(
    packages: Path, folder: Path, task: Case, *, load: bool, gradients: bool = True, alone: bool = False
) -> dict[str, Tensor]:
    """What TerraTorch finds; the weights are in folder/model.pt, before or after."""
    config = config_of(task.description)["pretrained_cfg"]
    assert isinstance(config, dict)
    left_out = {"in_chans", "bands", "mean", "std", "layer_norm_eps", "provenance"}  # its own, or unknown to it
    arguments = {name: value for name, value in config.items() if name not in left_out}
    variant = "prithvi_eo_v2_100_tl" if task.metadata else "prithvi_eo_v1_100"
    request = {"variant": variant, "arguments": arguments, "load": load, "gradients": gradients, "alone": alone}
    (folder / "request.json").write_text(json.dumps(request))
    save_file(task.tensors(), folder / "input.safetensors")
    done = subprocess.run(
        [sys.executable, str(PEER), str(folder)], env=beside(packages), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "output.safetensors")


def ours(model: MaskedAutoencoder, task: Case) -> tuple[Tensor, Tensor]:
    """(predictions of the hidden tokens, loss)."""
    plan, vectors = task.plan(), patches(task.image, model.encoder.config.patching)
    predicted = model(vectors, task.description.grid, plan, task.metadata)
    target = chosen(vectors, plan.hidden)
    return predicted, hidden_errors(predicted, target, torch.ones_like(target, dtype=torch.bool)).mean()


def in_their_names(model: MaskedAutoencoder, task: Case) -> dict[str, Tensor]:
    """Gradients, carried over as weights are."""
    holder = copy.deepcopy(model)
    for (name, parameter), value in zip(model.named_parameters(), holder.parameters(), strict=True):
        assert parameter.grad is not None, name
        value.data = parameter.grad
    state = to_prithvi(holder, task.description.grid)
    return {name: value for name, value in state.items() if "pos_embed" not in name}


def agree(model: MaskedAutoencoder, task: Case, found: dict[str, Tensor]) -> None:
    """Features, predictions, loss and gradients are TerraTorch's."""
    plan = task.plan()
    with torch.no_grad():
        features = model.encoder(
            patches(task.image, model.encoder.config.patching), task.description.grid, metadata=task.metadata
        )
    close("features", features, found["features"])
    assert torch.equal(found["mask"].nonzero()[:, 1].reshape(len(plan.hidden), -1), plan.hidden)
    predicted, loss = ours(model, task)
    close("predictions", predicted.detach(), chosen(found["predicted"], plan.hidden))
    close("loss", loss.detach(), found["loss"])
    gradients = {name.partition(".")[2]: value for name, value in found.items() if name.startswith("gradient.")}
    if not gradients:
        return
    loss.backward()
    mine = in_their_names(model, task)
    assert mine.keys() == gradients.keys()
    for name, value in gradients.items():
        assert value.abs().max() > 0, name
        close(name, mine[name], value)


def close(name: str, one: Tensor, other: Tensor) -> None:
    """Same shape, and no difference above 2e-5 of the largest number (3e-6 was seen; another eps makes 2e-4).

    TerraTorch has the angles of years and degrees in float32: 5e-5 in gradients of the scales, which add up over them.
    """
    assert one.shape == other.shape, name
    within = 3e-4 if name.endswith(".scale") else 2e-5
    worst = float((one - other).abs().max() / other.abs().max())
    assert worst <= within, f"{name}: off by {worst:.2g} of its largest number"


NANO = DecoderConfig(width=128, depth=2, heads=4)
CASES = {
    "3 dates": partial(case, SIZES["nano"], NANO, size=64, dates=3),
    "with date and place": partial(case, replace(SIZES["nano"], metadata=True), NANO, size=64, dates=3),
    "patches of 14": partial(case, replace(SIZES["nano"], patching=Patching(size=14)), NANO, size=56, dates=3),
    "patches of 2 dates": partial(case, replace(SIZES["nano"], patching=Patching(dates=2)), NANO, size=64, dates=2),
}


@pytest.mark.parametrize("name", CASES)
def test_terratorch_runs_our_weights_alike(packages: Path, tmp_path: Path, name: str) -> None:
    """Our file is loaded by TerraTorch's own builder without complaint, and computes the same."""
    task = CASES[name]()
    model = network(task.description)
    write_prithvi(tmp_path / "out", model, task.description)
    agree(model, task, theirs(packages, tmp_path / "out", task, load=True))


@pytest.mark.parametrize("name", CASES)
def test_terratorch_takes_our_encoder_alone(packages: Path, tmp_path: Path, name: str) -> None:
    """As a backbone, from a file without a decoder: no complaint, and the same features."""
    task = CASES[name]()
    encoder = network(task.description).encoder
    write_prithvi(tmp_path / "out", encoder, replace(task.description, decoder=None))
    found = theirs(packages, tmp_path / "out", task, load=True, alone=True)
    with torch.no_grad():
        vectors = patches(task.image, encoder.config.patching)
        features = encoder(vectors, task.description.grid, metadata=task.metadata)
    close("features", features, found["features"])


@pytest.mark.parametrize("name", CASES)
def test_we_run_terratorchs_weights_alike(packages: Path, tmp_path: Path, name: str) -> None:
    """A file that TerraTorch's model was saved to is read strictly, and computes the same."""
    task = CASES[name]()
    found = theirs(packages, tmp_path, task, load=False)
    (tmp_path / "config.json").write_text(json.dumps(config_of(task.description)))
    model, description = read_prithvi(tmp_path / "model.pt")
    assert description.encoder == task.description.encoder
    agree(model, task, found)


def test_the_comparison_sees_small_things(packages: Path, tmp_path: Path) -> None:
    """Another eps, the next day, a place whose axes are swapped, would be noticed."""
    task = CASES["with date and place"]()
    model = network(task.description)
    write_prithvi(tmp_path / "out", model, task.description)
    found = theirs(packages, tmp_path / "out", task, load=True, gradients=False)
    when = task.metadata
    assert when
    other = MaskedAutoencoder(replace(task.description.encoder, eps=1e-6), NANO)
    other.load_state_dict(model.state_dict())
    for changed, instead in (
        (other, task),
        (model, replace(task, metadata=replace(when, day=when.day + 1))),
        (model, replace(task, metadata=replace(when, lat=when.lon, lon=when.lat))),
    ):
        with torch.no_grad(), pytest.raises(AssertionError, match="off by"):
            agree(changed, instead, found)


def test_prithvi_100m_of_4_dates_predicts_alike(packages: Path, tmp_path: Path) -> None:
    """At full size, with random weights."""
    task = case(SIZES["100M"], DecoderConfig(), size=224, dates=4, b=1)
    model = network(task.description)
    write_prithvi(tmp_path / "out", model, task.description)
    with torch.no_grad():
        agree(model, task, theirs(packages, tmp_path / "out", task, load=True, gradients=False))
