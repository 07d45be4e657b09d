"""The parts of a run, made of its settings, once these fit the data and each other."""

from __future__ import annotations

import torch

from geofm_model.errors import StoreError
from geofm_model.loading import Loader
from geofm_model.models import MaskedAutoencoder
from geofm_model.training.distributed import Ranks
from geofm_model.training.masked import Preparation
from geofm_model.training.pixel_statistics import PixelStatistics
from geofm_model.training.schedules import Schedule
from geofm_model.training.settings import Pretraining, shown


def loader_of(run: Pretraining, ranks: Ranks, device: torch.device) -> Loader:
    """The training split, and whether the settings fit it."""
    data = run.data
    if data.part % ranks.world_size:
        raise ValueError(
            f"data.batch_size / data.accumulate is {data.part}, which {ranks.world_size} processes cannot share: it "
            "must be a multiple of their number"
        )
    loader = Loader(
        data.stores,
        batch_size=data.part,
        seed=run.seed,
        shares=data.shares,
        weighting="design" if data.weighting == "order" else "none",
        rank=ranks.rank,
        world_size=ranks.world_size,
        threads=data.threads,
        prefetch=data.prefetch,
        device=device,
    )
    digests = [store.header.digest for store in loader.members.stores]
    if len(set(digests)) < len(digests):
        names = ", ".join(shown(run).data.stores)
        raise ValueError(f"data.store names a store twice ({names}): data.shares draws one more often")
    bands, wanted = loader.members.stores[0].header.bands, run.model.encoder.patching.bands
    if len(bands) != wanted:
        raise ValueError(
            f"the stores have {len(bands)} bands ({', '.join(bands)}), model.encoder.patching.bands is {wanted}: make "
            "them equal"
        )
    if data.weighting == "loss" and loader.members.design is None:
        raise StoreError("data.weighting is loss, but the data have no samples.parquet, where design weights are")
    grid_of(run, loader)
    return loader


def grid_of(run: Pretraining, loader: Loader) -> tuple[int, int, int]:
    """Tokens (t, h, w) of a view; an error where views do not fit samples or patches."""
    header, task = loader.members.stores[0].header, run.task
    dates = task.dates or header.timesteps
    if dates > header.timesteps or task.size > min(header.height, header.width):
        raise ValueError(
            f"views of {dates} dates and {task.size} px do not fit the stores' samples of {header.timesteps} dates and "
            f"{header.height} × {header.width} px: lower task.dates or task.size"
        )
    return run.model.encoder.patching.grid((dates, task.size, task.size))


def network_of(run: Pretraining) -> MaskedAutoencoder:
    """Of random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return MaskedAutoencoder(run.model.encoder, run.model.decoder)


def preparation_of(run: Pretraining, statistics: PixelStatistics, device: torch.device) -> Preparation:
    mean, std = statistics.tensors(device)
    encoder = run.model.encoder
    return Preparation(
        task=run.task, patching=encoder.patching, mean=mean, std=std, seed=run.seed, metadata=encoder.metadata
    )


def schedule_of(run: Pretraining, steps: int) -> Schedule:
    optimizer = run.optimizer
    warmup = min(round(optimizer.warmup * steps), steps - 1)
    return Schedule(steps=steps, warmup=warmup, shape=optimizer.shape, cooldown=optimizer.cooldown)
