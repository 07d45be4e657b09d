"""The loader's promises: the stores' own pixels, whole permutations, exact resume, memory with one owner, errors."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from servers.loopback import Loopback, Reply, Request, serving
from servers.maps import folder_app

from geofm_model import Store, StoreError
from geofm_model.loading import Batch, Loader
from geofm_model.loading.placing import Owned

from .conftest import BURIED, MakeStore

READABLE = [index for index in range(21) if index not in BURIED]


def keys(batches: list[Batch]) -> list[tuple[int, int]]:
    """(epoch, sample) of all samples in order."""
    return [pair for batch in batches for pair in zip(batch.epoch.tolist(), batch.sample.tolist(), strict=True)]


def taken(loader: Loader, count: int) -> list[Batch]:
    """The next batches of a loader."""
    batches = iter(loader)
    return [next(batches) for _ in range(count)]


def check(batch: Batch, loader: Loader) -> None:
    """Every sample of a batch is that of the strict reader."""
    for at, sample in enumerate(batch.sample.tolist()):
        store = loader.members.stores[loader.members.store[sample]]
        wanted = store.sample(int(loader.members.row[sample]))
        assert np.array_equal(batch.image[at].numpy(), wanted.image)
        assert np.array_equal(batch.fmask[at].numpy(), wanted.fmask)
        assert np.array_equal(batch.valid()[at].numpy(), wanted.valid())
        assert batch.date[at].tolist() == wanted.date.tolist()
        assert (batch.lon[at].item(), batch.lat[at].item()) == (wanted.lon, wanted.lat)
        assert batch.stratum[at].item() == wanted.stratum


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
    assert len(loader) == 0


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


def test_repeats_in_a_weighted_epoch_look_elsewhere(dataset: Path) -> None:
    """The second turn of a sample has another number, by which its views differ."""
    loader = Loader(dataset, batch_size=8, weighting="design", epochs=1)
    seen = [
        triple
        for batch in loader
        for triple in zip(batch.sample.tolist(), batch.epoch.tolist(), batch.turn.tolist(), strict=True)
    ]
    assert len(set(seen)) == len(seen) == len(loader.members)
    assert max(turn for _, _, turn in seen) >= 1


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


def test_datasets_are_mixed_by_their_shares(store: Path, make_store: MakeStore) -> None:
    """Over many epochs the parts are those asked for, whatever the datasets' sizes; the digest names the mixture."""
    other = make_store(seed=4, n=60)
    loader = Loader([store, other], batch_size=10, shares=[3, 1])
    ids = np.concatenate([loader.ids(0, 40 * len(loader.members))[0]])
    part = (loader.members.store[ids] == 0).mean()
    assert abs(part - 0.75) < 0.02
    assert loader.members.digest != Loader([store, other], batch_size=10).members.digest
    for batch in taken(loader, 6):
        check(batch, loader)


def test_datasets_that_do_not_fit_are_refused(store: Path, make_store: MakeStore) -> None:
    """Another chip size is named; so are shares that are not as many."""
    other = make_store(height=8, width=8)
    with pytest.raises(StoreError, match=r"has height 8, .* has 16: they cannot be mixed"):
        Loader([store, other], batch_size=4)
    with pytest.raises(ValueError, match="need as many shares above 0"):
        Loader([store], batch_size=4, shares=[1, 1])


@pytest.fixture
def dataset(store: Path, make_store: MakeStore, tmp_path: Path) -> Path:
    """A folder with two waves and samples.parquet, where a sample's weight is its index + 1."""
    folder = tmp_path / "out"
    folder.mkdir()
    stores = [store, make_store(seed=5)]
    rows = []
    for wave, place in enumerate(stores, start=1):
        shutil.copytree(place, folder / ("store.zarr" if wave == 1 else f"store-{wave:04d}.zarr"))
        units = Store.open(place).column("unit").tolist()
        rows += [{"wave": wave, "index": i, "unit": unit, "weight": i + 1.0} for i, unit in enumerate(units)]
    table = pa.Table.from_pylist(rows).cast(
        pa.schema({"wave": pa.int16(), "index": pa.int64(), "unit": pa.uint64(), "weight": pa.float64()})
    )
    pq.write_table(table, folder / "samples.parquet")
    return folder


def test_all_waves_of_a_dataset_are_one(dataset: Path) -> None:
    """A folder is all its stores; without it there is a message."""
    loader = Loader(dataset, batch_size=4, epochs=1)
    assert set(loader.members.store.tolist()) == {0, 1}
    assert len(keys(list(loader))) == len(loader.members)
    with pytest.raises(StoreError, match="holds no store"):
        Loader(dataset.parent / "nothing", batch_size=4)


def test_design_weights_draw(dataset: Path) -> None:
    """How often a sample occurs is proportional to its weight in samples.parquet, which the digest then names."""
    loader = Loader(dataset, batch_size=4, weighting="design")
    n = len(loader.members)
    times = np.bincount(loader.ids(0, 400 * n)[0], minlength=n) / 400
    wanted = loader.members.row + 1.0
    assert np.abs(times - n * wanted / wanted.sum()).max() < 0.05
    before = loader.members.digest
    table = pq.read_table(dataset / "samples.parquet")
    changed = table.set_column(3, "weight", pa.array(np.asarray(table["weight"]) * 2 + 1))
    pq.write_table(changed, dataset / "samples.parquet")
    assert Loader(dataset, batch_size=4, weighting="design").members.digest != before
    assert Loader(dataset, batch_size=4).members.digest == Loader(dataset, batch_size=4).members.digest


def test_weights_of_another_run_are_refused(dataset: Path) -> None:
    """samples.parquet must list the stores' own units."""
    table = pq.read_table(dataset / "samples.parquet")
    pq.write_table(table.slice(0, 30), dataset / "samples.parquet")
    with pytest.raises(StoreError, match="does not list the samples of"):
        Loader(dataset, batch_size=4, weighting="design")
    (dataset / "samples.parquet").unlink()
    with pytest.raises(StoreError, match=r"has no samples\.parquet"):
        Loader(dataset, batch_size=4, weighting="design")


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


@pytest.fixture
def served(dataset: Path) -> Iterator[Loopback]:
    """The dataset on a web server with latency."""
    with serving(folder_app(dataset), latency_s=0.005) as server:
        yield server


def test_over_a_network_the_same_batches_by_one_request_each(dataset: Path, served: Loopback, no_proxy: None) -> None:
    """Samples of a store behind an address are those of the folder; an image costs a request, the masks of a shard one
    for all."""
    local, remote = (Loader(place, batch_size=6, epochs=1, seed=1) for place in (dataset, served.url))
    opened = len(served.log)
    for one, other in zip(local, remote, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.fmask, other.fmask)
    asked = [request.path for request in served.log[opened:]]
    shards = {(int(store), int(row) // 4) for store, row in zip(local.members.store, local.members.row, strict=True)}
    assert sum("/image/" in path for path in asked) == len(local.members)
    assert sum("/fmask/" in path for path in asked) == len(shards)
    assert len(asked) == len(local.members) + len(shards)


def test_a_query_goes_to_every_file_and_into_no_message(dataset: Path, no_proxy: None) -> None:
    """A signed address of a dataset reads all its waves; what fails is named without the signature or a password."""
    files = folder_app(dataset)

    def app(request: Request) -> Reply:
        return files(request) if request.query.get("sig") == "secret" else Reply(status=403)

    with serving(app) as server:
        loader = Loader(f"{server.url}?sig=secret", batch_size=4, epochs=1)
        assert len(keys(list(loader))) == len(loader.members)
        assert set(loader.members.store.tolist()) == {0, 1}
        host = server.url.removeprefix("http://")
        with pytest.raises(StoreError) as caught:
            Loader(f"http://user:password@{host}?sig=other-secret", batch_size=4)
    assert host in str(caught.value)
    assert not any(word in str(caught.value) for word in ("secret", "password", "user:"))


def test_a_remote_store_travels(served: Loopback, no_proxy: None) -> None:
    """To a spawned process: by pickle, and reads there."""
    store = pickle.loads(pickle.dumps(Store.open(f"{served.url}/store.zarr")))
    assert store.sample(int(store.readable[0])).image.any()


def test_a_network_that_fails_is_an_error_without_secrets(
    dataset: Path, served: Loopback, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is away is a StoreError that names it."""
    loader = Loader(served.url, batch_size=4, epochs=1)
    for shard in (dataset / "store.zarr" / "image").glob("c.*"):
        shard.unlink()
    with pytest.raises(StoreError, match=r"image/c\.\d.* is missing"):
        list(loader)


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached as it is."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


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
