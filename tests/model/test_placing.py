"""Memory of batches: whose it is, when it is filled again, and the way to another device."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geofm_model import StoreError
from geofm_model.loading import Batch, Loader, loader
from geofm_model.loading.lanes import Lane

from .streaming import check, keys


def test_batches_belong_to_whoever_holds_them(store: Path) -> None:
    """What was handed out never changes, not even where only a view, or a NumPy array of a view, was kept."""
    batches = iter(Loader(store, batch_size=4, prefetch=1, threads=2))
    kept: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]] | torch.Tensor] = []
    copies: list[torch.Tensor] = []
    for step in range(40):
        batch = next(batches)
        kept.append((batch.image, batch.image[1:], batch.image[2].numpy()[0], batch.fmask.view(-1))[step % 4])
        copies.append(torch.as_tensor(kept[-1]).clone())
        del batch
    assert all(torch.equal(torch.as_tensor(held), copy) for held, copy in zip(kept, copies, strict=True))


def test_memory_is_used_again(store: Path) -> None:
    """Whoever drops a batch before the next sees few places in memory; whoever keeps all gets as many."""

    def places(keep: bool) -> int:
        batches, held = iter(Loader(store, batch_size=4, prefetch=2)), []
        seen = set()
        for _ in range(30):
            batch = next(batches)
            seen.add(batch.image.data_ptr())
            held += [batch] if keep else []
            del batch
        return len(seen)

    assert places(keep=False) <= 6
    assert places(keep=True) == 30


def test_a_borrowed_batch_is_overwritten(store: Path) -> None:
    """The other side of the promise: with `borrow` the memory is the next batches', which tests must not overlook."""
    batches = iter(Loader(store, batch_size=4, prefetch=1, borrow=True, seed=1))
    first = next(batches)
    before, place = first.image.clone(), first.image.data_ptr()
    while next(batches).image.data_ptr() != place:
        pass
    assert not torch.equal(first.image, before)


class LateCopy:
    """A copy that happens no sooner than somebody waits for it; implements Sent."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._source, self._found = tensors, {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self._over = False

    def is_over(self) -> bool:
        """See Sent."""
        return self._over

    def wait(self) -> None:
        """See Sent."""
        for name, tensor in self._source.items():
            if not self._over:
                self._found[name].copy_(tensor)
        self._over = True

    def take(self) -> dict[str, Tensor]:
        """See Sent; a caller on the device would wait there."""
        return self._found


class LateLane:
    """To a device as slow as can be; implements Lane."""

    def __init__(self) -> None:
        self.sent: list[LateCopy] = []

    def locked(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See Lane."""
        return torch.empty(shape, dtype=dtype)

    def lock(self, tensor: Tensor) -> Tensor:
        """See Lane."""
        return tensor.clone()

    def send(self, tensors: dict[str, Tensor]) -> LateCopy:
        """See Lane."""
        self.sent.append(LateCopy(tensors))
        return self.sent[-1]

    def finish(self) -> None:
        """All copies that are still under way."""
        for copy in self.sent:
            copy.wait()


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> LateLane:
    """Where batches for a GPU go."""
    lanes = [LateLane()]

    def once(device: torch.device) -> Lane:
        return lanes.pop()

    def there(device: torch.device) -> None:
        """A GPU."""

    found = lanes[0]
    monkeypatch.setattr(loader, "cuda_lane", once)
    monkeypatch.setattr(loader, "check_gpu", there)
    return found


def test_no_slab_is_filled_again_before_its_copy_is_over(store: Path, lane: LateLane) -> None:
    """However late copies happen, every batch is that of the store, over several passes by one lane."""
    stream = Loader(store, batch_size=4, epochs=6, device="cuda", prefetch=1, threads=3)
    batches = [batch for _ in range(2) for batch in stream]
    lane.finish()
    for batch in batches:
        check(batch, stream)
    assert len(keys(batches)) == 12 * len(stream.members)


def test_copies_run_one_batch_ahead_of_the_state(store: Path, lane: LateLane) -> None:
    """The next batch is on its way while the caller has this one, and counts as consumed when it is handed out."""
    stream = Loader(store, batch_size=4, epochs=6, device="cuda")
    batches, handed_out = iter(stream), 0
    while len(lane.sent) == handed_out:  # until a caller that takes its time is slower than the disk
        next(batches)
        handed_out += 1
        time.sleep(0.05)
    assert len(lane.sent) == handed_out + 1
    assert stream.state_dict()["consumed"] == 4 * handed_out


def test_what_goes_wrong_ahead_is_raised_in_its_turn(store: Path, tmp_path: Path, lane: LateLane) -> None:
    """A damaged shard: all batches before its first sample are handed out, then the error, again and again."""
    copy = Path(shutil.copytree(store, tmp_path / "store.zarr"))
    stream = Loader(copy, batch_size=2, epochs=1, shuffle=False, device="cuda")
    (copy / stream.members.stores[0].image.file(1)).unlink()
    hit = next(at for at, row in enumerate(stream.members.row) if row // 4 == 1) // 2
    batches = iter(stream)
    found = [next(batches) for _ in range(hit)]
    for _ in range(2):
        with pytest.raises(StoreError, match="is missing"):
            next(batches)
    lane.finish()
    for batch in found:
        check(batch, Loader(store, batch_size=2, shuffle=False))
    assert stream.state_dict()["consumed"] == 2 * hit


@pytest.mark.parametrize(
    ("device", "message"),
    [
        pytest.param(
            "cuda",
            "torch sees no GPU here: use device='cpu'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ("cuda:99", "torch sees"),
        ("gpu", "device must be cpu, cuda or cuda:NUMBER, got 'gpu'"),
        ("meta", "batches go to cpu or cuda, not to meta"),
    ],
)
def test_a_device_that_is_not_there_is_refused_at_once(store: Path, device: str, message: str) -> None:
    """When the loader is made, before a store is opened, a thread is started or a file is left open."""
    descriptors = Path("/proc/self/fd")
    before = threading.active_count(), descriptors.is_dir() and len(list(descriptors.iterdir()))
    for place in (store, "/nowhere"):
        with pytest.raises(ValueError, match=message):
            Loader(place, batch_size=4, device=device)
    assert (threading.active_count(), descriptors.is_dir() and len(list(descriptors.iterdir()))) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_the_stores(store: Path) -> None:
    """While earlier work keeps it busy and batches are dropped and kept in turns."""
    stream = Loader(store, batch_size=6, epochs=40, device="cuda", prefetch=1)
    kept: list[Batch] = []
    work = torch.randn(2048, 2048, device="cuda")
    for step, batch in enumerate(stream):
        work = torch.tanh(work @ work)
        if step % 3:
            kept.append(Batch(**{**vars(batch), "image": batch.image + 0, "fmask": batch.fmask + 0}))
        assert batch.image.device == torch.device("cuda", torch.cuda.current_device())
    for batch in kept:
        check(batch.to("cpu"), stream)
