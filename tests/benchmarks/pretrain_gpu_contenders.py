"""Networks of one shape that take optimizer steps on one device; pretrain_gpu.py times them.

Under bfloat16 autocast, with fused AdamW, on samples of one batch that stays on the device:

- *ours*: :meth:`Learner.step` as `geofm-train pretrain` calls it, from int16 samples to weights and their moving
  average, with views, masks and normalisation;
- *terratorch*: TerraTorch's PrithviMAE with date and place, from a normalised view that was made before;
- *reference*: the published definition in plain torch, from the same view: a convolution embeds all patches,
  attention is two matrix products, the decoder predicts all tokens, errors are those of whole hidden patches.

`compiled` compiles each transformer block of whoever runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import count
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from geofm_model.loading import Batch, Loader
from geofm_model.models import SIZES as ENCODERS
from geofm_model.models import (
    DecoderConfig,
    EncoderConfig,
    Grid,
    MaskedAutoencoder,
    grid_positions,
    patches,
    pixels,
    seen_count,
    step_flops,
)
from geofm_model.training.distributed import Ranks
from geofm_model.training.learner import Learner, Pending
from geofm_model.training.masked import MaskedTask, Preparation, Prepared
from geofm_model.training.pixel_statistics import pixel_statistics
from geofm_model.training.settings import DataSettings, ModelSettings, Precision, Pretraining

RATE = 1e-5
"""Learning rate: small, since there is no warm-up."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A network and what it looks at."""

    encoder: EncoderConfig
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    dates: int = 4
    view: int = 224
    """Edge of a view in pixels."""
    chip: int = 256
    """Edge of a stored sample in pixels."""
    usual: int = 64
    """Batch at which all contenders meet."""
    batches: tuple[int, ...] = (32, 64, 128, 256, 512)
    target: float | None = None
    """What share of the matrix products' rate a compiled step of ours should reach."""

    @property
    def grid(self) -> Grid:
        """Tokens along (t, h, w)."""
        return self.encoder.patching.grid((self.dates, self.view, self.view))

    @property
    def task(self) -> MaskedTask:
        """What is asked; three quarters of the tokens are hidden."""
        return MaskedTask(size=self.view, dates=self.dates)

    @property
    def flops(self) -> int:
        """Of a sample's step, as far as it is needed: seen patches are embedded, hidden ones predicted."""
        return step_flops(self.encoder, self.decoder, self.grid, seen_count(prod(self.grid), self.task.ratio))


def _dated(name: str) -> EncoderConfig:
    return replace(ENCODERS[name], metadata=True)


SIZES = {
    "100M-T3": Size(encoder=_dated("100M"), dates=3, target=0.35),
    "100M-T4": Size(encoder=_dated("100M"), target=0.35),
    "300M-T4": Size(encoder=_dated("300M"), target=0.45),
    "600M-T4": Size(encoder=_dated("600M"), usual=32, target=0.50),
    "nano": Size(
        encoder=_dated("nano"),
        decoder=DecoderConfig(width=128, depth=2, heads=4),
        dates=2,
        view=64,
        chip=72,
        usual=4,
        batches=(2, 4),
    ),
}
"""Prithvi's, with dates and places as our recipes have them; nano rehearses on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What contenders are built for."""

    size: Size
    batch: int
    compiled: bool
    device: torch.device
    store: Path
    """Of samples with at least the size's dates."""
    precision: Precision = "bf16"

    def loader(
        self, *, batch: int | None = None, device: str | None = None, prefetch: int = 2, seed: int = 0
    ) -> Loader:
        """Of the training split."""
        return Loader(
            self.store, batch_size=batch or self.batch, device=device or self.device, prefetch=prefetch, seed=seed
        )

    def preparation(self, loader: Loader, device: torch.device | None = None) -> Preparation:
        """With the statistics of the loader's data."""
        mean, std = pixel_statistics(loader.members).tensors(device or self.device)
        patching = self.size.encoder.patching
        return Preparation(task=self.size.task, patching=patching, mean=mean, std=std, seed=0, metadata=True)

    def network(self) -> MaskedAutoencoder:
        """On the device; its weights are random and always the same there."""
        torch.manual_seed(0)
        with self.device:
            return MaskedAutoencoder(self.size.encoder, self.size.decoder)

    def settings(self) -> Pretraining:
        """As the recipes have them; `out` names no folder yet."""
        model = ModelSettings(
            encoder=self.size.encoder, decoder=self.size.decoder, compile=self.compiled, average=0.9999
        )
        data = DataSettings(store=str(self.store), batch_size=self.batch)
        return Pretraining(data=data, model=model, task=self.size.task, precision=self.precision, out="nowhere")

    def learner(self, network: MaskedAutoencoder, preparation: Preparation) -> Learner:
        """Alone on its device."""
        return Learner(network, preparation, self.settings(), Ranks())


class Stores:
    """Synthetic stores by dates and edge, made when asked for, in memory where there is room."""

    def __init__(self, given: Path | None, samples: int) -> None:
        self._given, self._samples = given, samples
        room = Path("/dev/shm")
        enough = room.is_dir() and shutil.disk_usage(room).free > 2 * 4e6 * samples
        self._folder = Path(tempfile.mkdtemp(prefix="pretrain-gpu-", dir=room if enough else None))
        self._made: dict[tuple[int, int], Path] = {}

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)

    def of(self, size: Size) -> Path:
        """A store of such samples."""
        if self._given is not None:
            return self._given
        key = (size.dates, size.chip)
        if key not in self._made:
            begun = time.perf_counter()
            self._made[key] = write_store(self._folder / f"{size.dates}x{size.chip}", *key, self._samples)
            print(f"{self._made[key]}: written in {time.perf_counter() - begun:.1f} s", flush=True)
        return self._made[key]


def write_store(folder: Path, dates: int, edge: int, samples: int) -> Path:
    """A sealed store; 32 chips of clouded noise with an HLS-like spectrum come again and again."""
    from geofm_pipeline.chips import Chip, ChipRequest
    from geofm_pipeline.store import StoreSpec
    from geofm_pipeline.store.synthetic import (
        SyntheticReader,
        synthetic_chip,
        synthetic_requests,
        write_synthetic_store,
    )

    spec = StoreSpec(n=samples, timesteps=dates, height=edge, width=edge, seed=0)
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        chips = list(pool.map(synthetic_chip, [request.chip for request in synthetic_requests(spec)[:32]]))
    number = count()

    def again(request: ChipRequest) -> Chip:
        return replace(chips[next(number) % len(chips)], unit=request.unit)

    write_synthetic_store(folder, spec, SyntheticReader(again), threads=threads)
    return folder / "store.zarr"


class Contender(Protocol):
    """Who takes steps."""

    def step(self) -> None:
        """Launch one on the device."""
        ...

    def loss(self) -> float:
        """Of the last step; waits for it."""
        ...


class Ours:
    """Our learner, on a batch that stays on the device or on those it is given."""

    def __init__(self, case: Case) -> None:
        self.loader = case.loader()
        self.batch = next(iter(self.loader))
        self.learner = case.learner(case.network(), case.preparation(self.loader))
        self._pending: Pending | None = None
        self._at = 0

    def step(self, batch: Batch | None = None) -> None:
        """As in the loop over steps: what one found is read when the next one has been launched."""
        launched = self.learner.step(self._at, [self.batch if batch is None else batch], RATE)
        if self._pending is not None:
            self._pending.result()
        self._pending, self._at = launched, self._at + 1

    def loss(self) -> float:
        """See :class:`Contender`."""
        assert self._pending is not None
        return self._pending.result().loss


class Peer:
    """A model of others' on views that stay on the device.

    Parameters
    ----------
    blocks : of the model, for compiling
    loss_of : runs it
    """

    def __init__(
        self, case: Case, model: nn.Module, blocks: Sequence[nn.Module], loss_of: Callable[[], Tensor]
    ) -> None:
        for block in blocks if case.compiled else ():
            block.compile(dynamic=False)
        self._device, self._loss_of = case.device.type, loss_of
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True
        )
        self._last = torch.zeros(())

    def step(self) -> None:
        """See :class:`Contender`."""
        with torch.autocast(self._device, torch.bfloat16):
            loss = self._loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._last = loss.detach()

    def loss(self) -> float:
        """See :class:`Contender`."""
        return float(self._last)


def _view(case: Case) -> tuple[Tensor, Prepared]:
    """Normalised pixels [b, c, t, h, w], in the peers' order of axes, and where they are from."""
    loader = case.loader()
    prepared = case.preparation(loader)(next(iter(loader)))
    image = pixels(prepared.vectors, case.size.encoder.patching, prepared.grid)
    return image.permute(0, 2, 1, 3, 4).contiguous(), prepared


def terratorch(case: Case) -> Peer:
    """TerraTorch's model for this very size and number of dates, so that it need not interpolate."""
    prithvi = import_module("import_prithvi").prithvi_mae()  # of tests/model/terratorch
    encoder, decoder, edge = case.size.encoder, case.size.decoder, case.size.encoder.patching.size
    torch.manual_seed(0)
    with case.device:
        model = prithvi.PrithviMAE(
            img_size=case.size.view,
            patch_size=(1, edge, edge),
            num_frames=case.size.dates,
            in_chans=encoder.patching.bands,
            embed_dim=encoder.width,
            depth=encoder.depth,
            num_heads=encoder.heads,
            decoder_embed_dim=decoder.width,
            decoder_depth=decoder.depth,
            decoder_num_heads=decoder.heads,
            coords_encoding=["time", "location"],
            coords_scale_learn=True,
        )
    view, prepared = _view(case)
    known = prepared.metadata
    assert known is not None
    when = torch.stack([known.year, known.day], dim=-1).float()
    where = torch.stack([known.lat, known.lon], dim=-1).float()

    def loss_of() -> Tensor:
        loss: Tensor = model(view, when, where)[0]["loss"]
        return loss

    return Peer(case, model, [*model.encoder.blocks, *model.decoder.decoder_blocks], loss_of)


def reference(case: Case) -> Peer:
    """The plain one."""
    torch.manual_seed(0)
    with case.device:
        model = PlainAutoencoder(case.size)
    view, _ = _view(case)
    return Peer(case, model, [*model.encoder, *model.decoder], lambda: model(view))


class PlainBlock(nn.Module):
    """A transformer's block as facebookresearch/mae has it; attention by two products and a softmax between."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, width] → the same."""
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        mixed: Tensor = self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, width))
        x = x + mixed
        widened: Tensor = self.fc2(gelu(self.fc1(self.norm2(x))))
        return x + widened


class PlainAutoencoder(nn.Module):
    """The published definition, dense; images [b, c, t, h, w] to their loss."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        encoder, decoder, p = size.encoder, size.decoder, size.encoder.patching
        self.patching, self.keep = p, seen_count(prod(size.grid), size.task.ratio)
        self.patch = nn.Conv3d(p.bands, encoder.width, (1, p.size, p.size), (1, p.size, p.size))
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, encoder.width))
        self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, decoder.width))
        self.encoder = nn.ModuleList(PlainBlock(encoder.width, encoder.heads) for _ in range(encoder.depth))
        self.decoder = nn.ModuleList(PlainBlock(decoder.width, decoder.heads) for _ in range(decoder.depth))
        self.norm, self.decoder_norm = nn.LayerNorm(encoder.width), nn.LayerNorm(decoder.width)
        self.narrow, self.predict = nn.Linear(encoder.width, decoder.width), nn.Linear(decoder.width, p.numbers)
        for name, width in (("places", encoder.width), ("decoder_places", decoder.width)):
            table = grid_positions(size.grid, width).to(self.cls.device, torch.float32)
            self.register_buffer(name, table)

    def forward(self, image: Tensor) -> Tensor:
        """The loss, a scalar."""
        places, decoder_places = self.get_buffer("places"), self.get_buffer("decoder_places")
        x = self.patch(image).flatten(2).transpose(1, 2) + places[1:]
        b, n, _ = x.shape
        shuffle = torch.rand(b, n, device=x.device).argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        x = x.gather(1, shuffle[:, : self.keep, None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([(self.cls + places[:1]).expand(b, -1, -1), x], dim=1)
        for block in self.encoder:
            x = block(x)
        x = self.narrow(self.norm(x))
        tokens = torch.cat([x[:, 1:], self.hidden.to(x.dtype).expand(b, n - self.keep, -1)], dim=1)
        tokens = tokens.gather(1, restore[..., None].expand(-1, -1, tokens.shape[-1]))
        x = torch.cat([x[:, :1], tokens], dim=1) + decoder_places
        for block in self.decoder:
            x = block(x)
        predicted = self.predict(self.decoder_norm(x))[:, 1:]
        target = patches(image.transpose(1, 2), self.patching)
        hidden = torch.ones(b, n, device=x.device)
        hidden[:, : self.keep] = 0
        hidden = hidden.gather(1, restore)
        errors: Tensor = (predicted - target).square().mean(dim=-1)
        return (errors * hidden).sum() / hidden.sum()


CONTENDERS: Mapping[str, Callable[[Case], Contender]] = {"ours": Ours, "terratorch": terratorch, "reference": reference}
"""Those who are dropped first, when memory is short for all at once, come last."""
