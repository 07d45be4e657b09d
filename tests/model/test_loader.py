"""The loader's promises: the stores' own pixels, whole permutations, passes, exact resume, errors that stay."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geofm_model import Store, StoreError
from geofm_model.loading import Loader
from geofm_model.loading.loader import _cores
from geofm_model.loading.placing import Owned

from .conftest import BURIED, MakeStore
from .streaming import check, keys, taken

READABLE = [index for index in range(21) if index not in BURIED]


@pytest.mark.parametrize("borrow", [False, True])
@pytest.mark.parametrize("threads", [1, 5])
def test_batches_are_the_stores_samples(store: Path, threads: int, borrow: bool) -> None:
    """Pixels, masks and metadata of every sample, each once per epoch, tombstones and other splits left out."""
    loader = Loader(store, batch_size=5, epochs=3, threads=threads, borrow=borrow)
    seen = []
    for batch in loader:
        check(batch, loader)
        assert (batch.image.dtype, batch.fmask.dtype, batch.date.dtype) == (torch.int16, torch.uint8, torch.int32)
        seen.append(batch)
    train = [i for i in READABLE if Store.open(store).column("split")[i] == 0]
    assert loader.members.row.tolist() == train
    assert sorted(keys(seen)) == [(epoch, sample) for epoch in range(3) for sample in range(len(train))]
    assert len(loader) == len(seen)  # of the pass to come


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_without_shuffling_a_split_is_read_in_order(store: Path, split: str) -> None:
    """One pass in order of the store, the last batch smaller."""
    loader = Loader(store, batch_size=4, split=split, epochs=1, shuffle=False)  # type: ignore[arg-type]
    batches = list(loader)
    assert keys(batches) == [(0, sample) for sample in range(len(loader.members))]
    codes = Store.open(store).column("split")[loader.members.row]
    assert set(codes.tolist()) == {{"train": 0, "heldout": 1}[split]}


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_one_stream(store: Path, world: int) -> None:
    """At any world size the ranks' parts side by side are the same global batches."""
    alone = taken(Loader(store, batch_size=6, seed=3), 7)
    ranks = [taken(Loader(store, batch_size=6, seed=3, rank=rank, world_size=world), 7) for rank in range(world)]
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert keys(parts) == keys([whole])
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)


def test_the_last_batch_may_have_nothing_for_a_rank(store: Path) -> None:
    """A finite pass on more ranks than samples are left: together they hold everything once, and none waits."""
    whole = len(Loader(store, batch_size=8).members)
    ranks = [list(Loader(store, batch_size=8, epochs=1, rank=rank, world_size=8)) for rank in range(8)]
    assert {len(batches) for batches in ranks} == {-(-whole // 8)}
    assert 0 in [len(batches[-1]) for batches in ranks]
    assert sorted(keys([batch for batches in ranks for batch in batches])) == [(0, i) for i in range(whole)]


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_resume_is_exact(store: Path, after: int) -> None:
    """A state taken anywhere, through JSON, goes on with the very next batch: other threads, prefetch and ranks."""
    whole = keys(taken(Loader(store, batch_size=6, seed=2), 15))
    first = Loader(store, batch_size=6, seed=2, threads=3, prefetch=4)
    begun = keys(taken(first, after))
    state = json.loads(json.dumps(first.state_dict()))
    resumed = [Loader(store, batch_size=6, seed=2, rank=rank, world_size=2, prefetch=1) for rank in range(2)]
    parts = []
    for loader in resumed:
        loader.load_state_dict(state)
        parts.append(taken(loader, 15 - after))
    rest = [pair for pieces in zip(*parts, strict=True) for pair in keys(list(pieces))]
    assert begun + rest == whole


def test_reading_ahead_is_not_consumed(store: Path) -> None:
    """The state speaks of what was handed out, however much was read."""
    loader = Loader(store, batch_size=3, prefetch=6)
    batches = iter(loader)
    next(batches)
    time.sleep(0.1)
    assert loader.state_dict()["consumed"] == 3


@pytest.mark.parametrize("change", ["seed", "batch_size", "digest", "split", "shuffle"])
def test_a_state_of_another_stream_is_refused(store: Path, make_store: MakeStore, change: str) -> None:
    """Another seed, batch size, split or dataset would go on with other samples."""
    state = Loader(store, batch_size=4).state_dict()
    place = make_store(seed=9) if change == "digest" else store
    options = {
        "seed": {"seed": 5},
        "batch_size": {"batch_size": 2},
        "split": {"split": "heldout"},
        "shuffle": {"shuffle": False},
    }.get(change, {})
    other = Loader(place, **{"batch_size": 4, **options})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it is another stream"):
        other.load_state_dict(state)


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_damage_is_an_error_and_stays_one(store: Path, tmp_path: Path, harm: str) -> None:
    """A flipped byte, a short and a missing shard: the sample's batch raises, and so does everything after it."""
    copy = Path(shutil.copytree(store, tmp_path / "store.zarr"))
    loader = Loader(copy, batch_size=2, epochs=1, shuffle=False)
    shard = copy / loader.members.stores[0].image.file(1)
    data = bytearray(shard.read_bytes())
    data[60] ^= 1
    if harm == "delete":
        shard.unlink()
    else:
        shard.write_bytes(data if harm == "flip" else data[:80])
    batches, whole = iter(loader), Loader(store, batch_size=2, shuffle=False)
    hit = next(at for at, row in enumerate(loader.members.row) if row // 4 == 1) // 2  # the batch with its first sample
    for _ in range(hit):
        check(next(batches), whole)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"sample \d+"):
            next(batches)
    assert loader.state_dict()["consumed"] == 2 * hit


@pytest.mark.parametrize("threads", [1, 3])
def test_any_error_is_raised_and_stays(store: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Of the disk, of the order, for lack of memory: never an end that looks like the end of the data, never a hang."""
    loader = Loader(store, batch_size=2, epochs=1, threads=threads)
    for target, name, error in (
        (loader, "fill", OSError(5, "Input/output error")),
        (loader, "ids", KeyError("order")),
        (Owned, "slab", MemoryError("no pages")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, _raising(error))
            batches = iter(loader)
            for _ in range(2):
                with pytest.raises(type(error)):
                    next(batches)
    assert len(keys(list(loader))) == len(loader.members)


def _raising(error: Exception) -> Callable[..., object]:
    def fail(*words: object, **named: object) -> object:
        raise error

    return fail


def test_an_error_of_the_disk_names_the_shard(store: Path, tmp_path: Path) -> None:
    """A shard that is a folder stands for whatever a disk may answer."""
    copy = Path(shutil.copytree(store, tmp_path / "store.zarr"))
    loader = Loader(copy, batch_size=2)
    for shard in (copy / "image").glob("c.*"):
        shard.unlink()
        shard.mkdir()
    with pytest.raises(StoreError, match=r"image/c\.\d.* gives an error \(Is a directory\)"):
        next(iter(loader))


def test_threads_end_with_their_iterator(store: Path) -> None:
    """Closed, forgotten or run to its end: no thread stays."""

    def alive() -> int:
        return sum(thread.name.startswith("geofm-loader") for thread in threading.enumerate())

    before = alive()
    batches = iter(Loader(store, batch_size=4, threads=3))
    next(batches)
    del batches
    list(Loader(store, batch_size=4, epochs=1))
    gc.collect()
    until = time.monotonic() + 10
    while alive() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert alive() <= before  # others' may end meanwhile


def test_an_iterator_does_not_survive_a_fork(store: Path) -> None:
    """A child that goes on with its parent's iterator is told, instead of waiting for ever; its own loader works."""
    script = f"""
import os, sys, warnings
from geofm_model.loading import Loader
warnings.simplefilter("ignore")
loader = Loader({str(store)!r}, batch_size=4)
batches = iter(loader)
next(batches)
child = os.fork()
if child == 0:
    own = next(iter(Loader({str(store)!r}, batch_size=4)))
    try:
        next(batches)
    except RuntimeError as error:
        os._exit(7 if "before a fork" in str(error) and len(own) == 4 else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, done.stderr


def test_another_process_sees_the_same_stream(store: Path) -> None:
    """Nothing of the order hangs on this process."""
    script = f"""
from geofm_model.loading import Loader
batches = iter(Loader({str(store)!r}, batch_size=4, seed=6, threads=3))
print([next(batches).sample.tolist() for _ in range(5)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str([b.sample.tolist() for b in taken(Loader(store, batch_size=4, seed=6), 5)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 5, "world_size": 2}, "must be a multiple of their number 2"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank must be 0 to 1"),
        ({"batch_size": 4, "prefetch": 0}, "prefetch must be at least 1"),
        ({"batch_size": 4, "threads": 0}, "threads must be at least 1"),
        ({"batch_size": 4, "split": "tset"}, "split must be one of train, heldout, test, got 'tset'"),
        ({"batch_size": 4, "weighting": "desing"}, "weighting must be one of none, design, got 'desing'"),
        ({"batch_size": 4, "device": "meta"}, "batches go to cpu or cuda"),
    ],
)
def test_arguments_that_cannot_be_right(store: Path, options: dict[str, object], words: str) -> None:
    """Refused when the loader is made, or its iterator."""
    with pytest.raises(ValueError, match=words):
        iter(Loader(store, **options))  # type: ignore[arg-type]


def test_files_are_small_and_shared(store: Path) -> None:
    """No descriptor stays open between batches."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    batches = iter(Loader(store, batch_size=4, threads=2, prefetch=1))
    for _ in range(5):
        next(batches)
    time.sleep(0.1)
    names: list[str] = []
    for number in folder.iterdir():
        try:
            names.append(str(number.readlink()))
        except OSError:
            continue
    assert not [name for name in names if str(store) in name]


def joined(loops: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """All loops' keys, one after the other."""
    return [key for loop in loops for key in loop]


def test_each_loop_is_a_pass(store: Path) -> None:
    """Three loops over a loader of one epoch are three epochs, each in an order of its own, as one stream would be."""
    loader, stream = Loader(store, batch_size=4, epochs=1, seed=8), Loader(store, batch_size=4, epochs=3, seed=8)
    n = len(loader.members)
    loops = []
    for done in range(3):
        assert (loader.passes_done, len(loader), loader.batches_per_pass) == (done, -(-n // 4), -(-n // 4))
        loops.append(keys(list(loader)))
    assert joined(loops) == keys(list(stream))
    assert [{epoch for epoch, _ in loop} for loop in loops] == [{0}, {1}, {2}]


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 9])
def test_passes_resume_exactly(store: Path, stop: int) -> None:
    """A state from amid a pass, or from the very end of one, goes on so that all passes together are the same."""

    def run(loader: Loader, most: int | None = None) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = []
        for _ in range(loader.passes_done, 3):
            found.append([])
            for batch in loader:
                found[-1] += keys([batch])
                most = None if most is None else most - 1
                if most == 0:
                    return found
        return found

    def make() -> Loader:
        return Loader(store, batch_size=4, epochs=1, seed=8)

    whole, first = run(make()), make()
    assert make().batches_per_pass == 3
    begun = run(first, stop) if stop else []
    resumed = make()
    resumed.load_state_dict(first.state_dict())
    assert joined(begun + run(resumed)) == joined(whole)


def test_a_loop_that_was_left_goes_on(store: Path) -> None:
    """The next loop gives what the first had not, to the end of the pass; `restart` goes back."""
    loader = Loader(store, batch_size=4, epochs=1, shuffle=False)
    first = keys([next(iter(loader))])
    assert len(loader) == loader.batches_per_pass - 1
    rest = keys(list(loader))
    assert first + rest == [(0, sample) for sample in range(len(loader.members))]
    loader.restart()
    assert keys(list(loader)) == first + rest


def test_counting_batches_instead_of_exhausting_them(store: Path) -> None:
    """Who takes as many batches as there are never sees the end, and still has a whole pass each time."""
    loader = Loader(store, batch_size=4, epochs=1)
    seen = [keys(taken(loader, len(loader))) for _ in range(3)]
    assert [len(loop) for loop in seen] == [len(loader.members)] * 3


@pytest.mark.parametrize("how", ["iterator", "state", "restart", "close"])
def test_an_older_iterator_cannot_move_the_stream(store: Path, how: str) -> None:
    """After a newer iterator, a loaded state, `restart` or `close` the old one raises, and the state stays."""
    loader = Loader(store, batch_size=2, epochs=2, seed=1)
    old = iter(loader)
    whole = keys([next(old)])
    state = loader.state_dict()
    whole += keys([next(old)])
    if how == "iterator":
        new = iter(loader)
        with pytest.raises(RuntimeError, match="a newer iterator"):
            next(old)
        assert whole + keys(list(new)) == keys(list(Loader(store, batch_size=2, epochs=2, seed=1)))
        return
    if how == "state":
        loader.load_state_dict(state)
    elif how == "restart":
        loader.restart()
    else:
        old.close()  # type: ignore[attr-defined]
    before = loader.state_dict()
    with pytest.raises(RuntimeError, match="was closed"):
        next(old)
    assert loader.state_dict() == before
    assert before["consumed"] == {"state": 2, "restart": 0, "close": 4}[how]


def test_a_loader_without_epochs_has_no_length(store: Path) -> None:
    """Neither batches nor passes."""
    loader = Loader(store, batch_size=2)
    for ask in (lambda: len(loader), lambda: loader.passes_done, lambda: loader.batches_per_pass):
        with pytest.raises(TypeError, match="for ever"):
            ask()


def test_a_loader_travels(store: Path) -> None:
    """By pickle, while it runs; the copy goes on where the loader stands, with small luggage."""
    loader = Loader(store, batch_size=3, seed=5)
    batches = iter(loader)
    next(batches)
    copy = pickle.loads(pickle.dumps(loader))
    assert keys(taken(copy, 4)) == keys([next(batches) for _ in range(4)])


def test_cores_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems than Linux have no affinity: all cores then."""
    assert _cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert _cores() == os.cpu_count()
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert _cores() == 3
