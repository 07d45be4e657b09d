"""Weights leave and come back bit by bit, in Prithvi's form and our own; what does not fit is named, never filled."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from geofm_model.exchange import (
    Description,
    encoder_from_prithvi,
    from_prithvi,
    load_encoder,
    load_model,
    read_prithvi,
    read_prithvi_encoder,
    save_model,
    select_bands,
    to_prithvi,
    write_prithvi,
)
from geofm_model.exchange.prithvi import filters_of, rows_of
from geofm_model.models import (
    SIZES,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    MaskedAutoencoder,
    MaskPlan,
    Patching,
    patches,
)
from geofm_model.training.pixel_statistics import PixelStatistics

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
STATISTICS = PixelStatistics(
    bands=BANDS,
    mean=(775.2, 1081.0, 1228.6, 2497.2, 2204.2, 1610.8),
    std=(1281.5, 1270.0, 1399.5, 1368.3, 1291.7, 1154.5),
)
GRID = (3, 2, 2)
State = dict[str, Tensor]


def described(*, metadata: bool = False) -> Description:
    """A small network of 3 dates of 8 px."""
    return Description(
        encoder=EncoderConfig(width=48, depth=2, heads=3, patching=Patching(size=4), eps=1e-6, metadata=metadata),
        decoder=DecoderConfig(width=32, depth=1, heads=2),
        statistics=STATISTICS,
        size=8,
        dates=3,
        provenance={"dataset": "a test", "digest": "0123"},
    )


def network(description: Description) -> MaskedAutoencoder:
    """With no weight at 0, so that each counts."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(description.encoder, description.decoder)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Every weight, bit by bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_prefixes(state: State) -> State:
    """Names of version 1."""
    return {name.partition(".")[2]: value for name, value in state.items()}


# --- Prithvi's weights


@pytest.mark.parametrize("metadata", [False, True])
def test_there_and_back_is_equal_bit_by_bit(metadata: bool) -> None:
    """All weights, whatever their names; the result is a copy, so that training it does not change the state."""
    description = described(metadata=metadata)
    model = network(description)
    state = to_prithvi(model, GRID)
    back = from_prithvi(state, description)
    assert same(model, back)
    with torch.no_grad():
        for parameter in back.parameters():
            parameter.zero_()
    assert same(model, from_prithvi(state, description))


def test_names_and_shapes_are_prithvis() -> None:
    """Those of the published files, with metadata."""
    state = to_prithvi(network(described(metadata=True)), GRID)
    blocks = {
        f"{place}.{part}.{kind}"
        for place in ("encoder.blocks.0", "encoder.blocks.1", "decoder.decoder_blocks.0")
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    ends = {
        "encoder.cls_token", "encoder.pos_embed", "encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias",
        "encoder.temporal_embed_enc.scale", "encoder.location_embed_enc.scale", "encoder.norm.weight",
        "encoder.norm.bias", "decoder.decoder_embed.weight", "decoder.decoder_embed.bias", "decoder.mask_token",
        "decoder.temporal_embed_dec.scale", "decoder.location_embed_dec.scale", "decoder.decoder_pos_embed",
        "decoder.decoder_norm.weight", "decoder.decoder_norm.bias", "decoder.decoder_pred.weight",
        "decoder.decoder_pred.bias",
    }  # fmt: skip
    assert set(state) == blocks | ends
    assert state["encoder.patch_embed.proj.weight"].shape == (48, 6, 1, 4, 4)
    assert state["encoder.pos_embed"].shape == (1, 13, 48)
    assert state["decoder.decoder_pos_embed"].shape == (1, 13, 32)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_version_1_are_read(prefix: str) -> None:
    """Without encoder. and decoder., and behind module. or not."""
    description = described()
    model = network(description)
    old = {prefix + name: value for name, value in without_prefixes(to_prithvi(model, GRID)).items()}
    assert same(model, from_prithvi(old, description))


@pytest.mark.parametrize("old", [False, True])
def test_an_encoder_is_read_alone(old: bool) -> None:
    """Of a file with a decoder, and of one without; the encoder's own state is one without."""
    description = described(metadata=True)
    model = network(description)
    for source in (model, model.encoder):
        state = to_prithvi(source, GRID)
        found = encoder_from_prithvi(without_prefixes(state) if old else state, description)
        assert same(model.encoder, found)


def lose(state: State) -> None:
    del state["decoder.decoder_blocks.0.mlp.fc2.bias"]
    del state["encoder.blocks.1.norm1.weight"]


def gain(state: State) -> None:
    state["encoder.blocks.2.norm1.weight"] = torch.ones(48)


def reshape(state: State) -> None:
    state["encoder.patch_embed.proj.weight"] = torch.ones(48, 5, 1, 4, 4)


def count(state: State) -> None:
    state["encoder.norm.bias"] = torch.ones(48, dtype=torch.int64)


def halve(state: State) -> None:
    state["encoder.norm.bias"] = torch.ones(48, dtype=torch.float16)


def shift(state: State) -> None:
    state["encoder.pos_embed"] = state["encoder.pos_embed"].roll(1, dims=1)


def spoil(state: State) -> None:
    state["decoder.decoder_pos_embed"][0, 3, 5] = float("nan")


def double(state: State) -> None:
    state["cls_token"] = state["encoder.cls_token"]


CORRUPTIONS: dict[Callable[[State], None], str] = {
    lose: r"missing: decoder\.decoder_blocks\.0\.mlp\.fc2\.bias, encoder\.blocks\.1\.norm1\.weight",
    gain: r"unexpected: encoder\.blocks\.2\.norm1\.weight",
    reshape: r"of another shape: encoder\.patch_embed\.proj\.weight \[48, 5, 1, 4, 4\] instead of \[48, 6, 1, 4, 4\]",
    count: r"no real numbers: encoder\.norm\.bias",
    halve: r"of several types: torch\.float16, torch\.float32",
    shift: r"encoder\.pos_embed is off by .* from the positions of a grid of \(3, 2, 2\)",
    spoil: r"decoder\.decoder_pos_embed is off by nan",
    double: r"the weights have encoder\.cls_token twice",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_whatever_does_not_fit_is_named(corrupt: Callable[[State], None]) -> None:
    """Each kind of damage, by the name of the entry; nothing is loaded in part."""
    description = described()
    state = to_prithvi(network(description), GRID)
    corrupt(state)
    with pytest.raises(ValueError, match=CORRUPTIONS[corrupt]):
        from_prithvi(state, description)


def test_another_number_of_dates_is_an_error() -> None:
    """Positions tell the grid: T = 4 is not T = 3, and 2 × 2 patches at 3 dates are not 3 × 2 at 2."""
    description = described()
    state = to_prithvi(network(description), (4, 2, 2))
    with pytest.raises(ValueError, match=r"encoder\.pos_embed \[1, 17, 48\] instead of \[1, 13, 48\]"):
        from_prithvi(state, description)
    with pytest.raises(ValueError, match=r"encoder\.pos_embed is off by"):
        from_prithvi(to_prithvi(network(description), (2, 3, 2)), description)


def test_a_missing_block_is_an_error_with_all_its_weights() -> None:
    """The file of a shallower network is not filled up with random numbers."""
    description = described()
    deeper = replace(description, encoder=replace(description.encoder, depth=3))
    with pytest.raises(
        ValueError, match=r"missing: encoder\.blocks\.2\.attn\.proj\.bias.*encoder\.blocks\.2\.norm2\.weight\."
    ):
        from_prithvi(to_prithvi(network(description), GRID), deeper)


def test_metadata_are_there_or_not() -> None:
    """A network with date and place is no network without, either way."""
    with_them, without = described(metadata=True), described()
    with pytest.raises(ValueError, match=r"unexpected: .*decoder.location_embed_dec.scale.*encoder.temporal_embed_enc"):
        from_prithvi(to_prithvi(network(with_them), GRID), without)
    with pytest.raises(ValueError, match=r"missing: .*decoder.location_embed_dec.scale.*encoder.temporal_embed_enc"):
        from_prithvi(to_prithvi(network(without), GRID), with_them)


def test_no_decoder_no_masked_autoencoder() -> None:
    """The description of an encoder says to read one."""
    description = replace(described(), decoder=None)
    with pytest.raises(ValueError, match="encoder_from_prithvi"):
        from_prithvi({}, description)


@given(
    t=st.integers(1, 3), s=st.integers(1, 2), p=st.sampled_from([2, 3]), c=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_filters_do_what_rows_do(t: int, s: int, p: int, c: int, seed: int) -> None:
    """A Conv3d with the exported weights equals our Linear on patches; and back is equal bit by bit."""
    torch.manual_seed(seed)
    config = EncoderConfig(width=16, depth=1, heads=1, patching=Patching(size=p, dates=s, bands=c))
    image = torch.randn(2, t * s, c, 2 * p, 3 * p, dtype=torch.float64)
    linear = torch.nn.Linear(config.patching.numbers, 16, dtype=torch.float64)
    filters = filters_of(linear.weight, config)
    tokens = torch.nn.functional.conv3d(image.transpose(1, 2), filters, linear.bias, stride=(s, p, p))
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), linear(patches(image, config.patching)))
    assert torch.equal(rows_of(filters), linear.weight)


# --- bands


def plan_of(n: int, keep: int) -> MaskPlan:
    """Sees the first tokens of two samples."""
    places = torch.arange(n).expand(2, -1)
    return MaskPlan(seen=places[:, :keep], hidden=places[:, keep:])


def test_chosen_bands_are_the_network_with_all_others_at_0() -> None:
    """Features equal those of the whole network that reads 0 elsewhere; predictions are its own of these bands."""
    description = described()
    model = network(description)
    wanted = ("swir1", "red", "nir_narrow")
    at = [BANDS.index(band) for band in wanted]
    part, changed = select_bands(model, description, wanted)
    image = torch.randn(2, 3, 3, 8, 8)
    whole = torch.zeros(2, 3, 6, 8, 8)
    whole[:, :, at] = image
    plan = plan_of(12, 4)
    all_vectors, vectors = patches(whole, model.encoder.config.patching), patches(image, part.encoder.config.patching)
    torch.testing.assert_close(part.encoder(vectors, GRID), model.encoder(all_vectors, GRID))
    predicted = model(all_vectors, GRID, plan).reshape(2, 8, 16, 6)[..., at].reshape(2, 8, 48)
    torch.testing.assert_close(part(vectors, GRID, plan), predicted)
    assert changed.statistics == PixelStatistics(
        bands=wanted, mean=(2204.2, 1228.6, 2497.2), std=(1291.7, 1399.5, 1368.3)
    )
    changed.check(part)
    again, _ = select_bands(model.encoder, replace(description, decoder=None), wanted)
    assert same(again, part.encoder)


def test_all_bands_in_order_change_nothing_and_order_can_be_undone() -> None:
    """A permutation there and back is the same network, bit by bit."""
    description = described()
    model = network(description)
    assert same(model, select_bands(model, description, BANDS)[0])
    turned, changed = select_bands(model, description, BANDS[::-1])
    assert not same(model, turned)
    assert same(model, select_bands(turned, changed, BANDS)[0])


def test_bands_without_weights_are_refused() -> None:
    """Nothing is filled with random numbers; a band cannot be there twice."""
    description = described()
    model = network(description)
    with pytest.raises(ValueError, match=r"no weights of coastal, cirrus; it has blue, .*, swir2"):
        select_bands(model, description, ("blue", "coastal", "cirrus"))
    with pytest.raises(ValueError, match="no weights of no band at all"):
        select_bands(model, description, ())
    with pytest.raises(ValueError, match="bands must differ from each other, got red, red"):
        select_bands(model, description, ("red", "red"))


# --- our own folders


@pytest.mark.parametrize("metadata", [False, True])
def test_a_folder_holds_the_network_and_what_describes_it(tmp_path: Path, metadata: bool) -> None:
    """Weights bit by bit, and the same description; the encoder alone, too."""
    description = described(metadata=metadata)
    model = network(description)
    save_model(tmp_path / "out", model, description)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "model.safetensors", "out"]
    found, read = load_model(tmp_path / "out")
    assert same(model, found)
    assert read == description
    encoder, _ = load_encoder(tmp_path / "out")
    assert same(model.encoder, encoder)


def test_an_encoder_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Which says that there is no decoder when one is asked for."""
    description = replace(described(), decoder=None)
    model = Encoder(description.encoder)
    save_model(tmp_path / "out", model, description)
    assert same(model, load_encoder(tmp_path / "out")[0])
    with pytest.raises(ValueError, match="has an encoder alone"):
        load_model(tmp_path / "out")


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    """A folder that is there stays; a failed write leaves no trace."""
    description = described()
    model = network(description)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="is there already"):
        save_model(tmp_path / "out", model, description)
    unwritable = replace(description, provenance={"when": {1, 2}})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        save_model(tmp_path / "other", model, unwritable)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("write", [save_model, write_prithvi])
def test_where_nothing_can_be_written_it_is_said(tmp_path: Path, write: Callable[..., None]) -> None:
    """Below a file, or on a disk that is full: one sentence, and no trace."""
    description = described()
    model = network(description)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/out cannot be written .* choose another folder"):
        write(tmp_path / "file" / "out", model, description)
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    try:
        with pytest.raises(ValueError, match=r"out cannot be written .*: make room"):
            write(tmp_path / "out", model, description)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_description_belongs_to_its_network(tmp_path: Path) -> None:
    """Another depth, another decoder, or statistics of other bands are refused before anything is written."""
    description = described()
    model = network(description)
    for wrong in (
        replace(description, encoder=replace(description.encoder, depth=3)),
        replace(description, decoder=None),
    ):
        with pytest.raises(ValueError, match=r"the description has the .* but the network has"):
            save_model(tmp_path / "out", model, wrong)
        with pytest.raises(ValueError, match=r"the description has the .* but the network has"):
            write_prithvi(tmp_path / "out", model, wrong)
    with pytest.raises(ValueError, match="a network of 6 bands needs as many names, means and deviations, got 6, 5, 6"):
        replace(description, statistics=replace(STATISTICS, mean=STATISTICS.mean[1:]))
    with pytest.raises(ValueError, match="deviations must be above 0"):
        replace(description, statistics=replace(STATISTICS, std=(0.0, *STATISTICS.std[1:])))
    with pytest.raises(ValueError, match="are no whole patches"):
        replace(description, size=10)


def edited(config: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change fields of a JSON file."""
    fields = json.loads(config.read_text())
    change(fields)
    config.write_text(json.dumps(fields))


OUR_HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is no JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds a list, not an object"),
    "another format": (
        lambda folder: edited(folder / "config.json", lambda fields: fields.update(version=2)),
        "is 'geofm-model' version 2; this reads 'geofm-model' version 1",
    ),
    "a field less": (
        lambda folder: edited(folder / "config.json", lambda fields: fields.pop("size")),
        r"config\.json has no field 'size'",
    ),
    "a field more": (
        lambda folder: edited(folder / "config.json", lambda fields: fields.update(registers=4)),
        r"config\.json has unknown fields \(registers\)",
    ),
    "a word for a number": (
        lambda folder: edited(folder / "config.json", lambda fields: fields.update(dates="3")),
        'dates must be a whole number above 0, got "3"',
    ),
    "other weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" + (folder / "model.safetensors").read_bytes()),
        r"is not the file that config\.json was written for \(SHA-256\)",
    ),
    "another network": (
        lambda folder: edited(folder / "config.json", lambda fields: fields["encoder"].update(depth=1)),  # type: ignore[attr-defined]
        r"is not of the network that config\.json describes: .*blocks\.1\.norm1\.weight",
    ),
}


@pytest.mark.parametrize("harm", OUR_HARM)
def test_a_harmed_folder_says_what_is_wrong(tmp_path: Path, harm: str) -> None:
    """File and field, and never another exception."""
    description = described()
    save_model(tmp_path / "out", network(description), description)
    do, message = OUR_HARM[harm]
    do(tmp_path / "out")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_model(tmp_path / "out")


# --- Prithvi's files


@pytest.mark.parametrize("metadata", [False, True])
def test_prithvis_files_hold_the_network_and_what_describes_it(tmp_path: Path, metadata: bool) -> None:
    """Weights bit by bit; the description again, eps included, and TerraTorch's name kept as provenance."""
    description = described(metadata=metadata)
    model = network(description)
    write_prithvi(tmp_path / "out", model, description)
    found, read = read_prithvi(tmp_path / "out" / "model.pt")
    assert same(model, found)
    extra = {"architecture": "other", "num_features": "48"}
    assert read == replace(description, provenance={**description.provenance, **extra})
    assert same(model.encoder, read_prithvi_encoder(tmp_path / "out" / "model.pt")[0])


def test_an_encoder_goes_into_prithvis_files_alone(tmp_path: Path) -> None:
    """With a config.json that has no decoder."""
    description = replace(described(), decoder=None)
    model = Encoder(description.encoder)
    write_prithvi(tmp_path / "out", model, description)
    found, read = read_prithvi_encoder(tmp_path / "out" / "model.pt")
    assert same(model, found)
    assert read.decoder is None


PUBLISHED = {
    "architecture": "prithvi_eo_v2_300",
    "num_features": 1024,
    "pretrained_cfg": {
        "img_size": 224,
        "num_frames": 4,
        "patch_size": [1, 16, 16],
        "in_chans": 6,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "decoder_embed_dim": 512,
        "decoder_depth": 8,
        "decoder_num_heads": 16,
        "mlp_ratio": 4,
        "coords_encoding": [],
        "coords_scale_learn": False,
        "mask_ratio": 0.75,
        "norm_pix_loss": False,
        "bands": ["B02", "B03", "B04", "B05", "B06", "B07"],
        "mean": [1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0],
        "std": [2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0],
        "origin_url": "somewhere",
    },
}
"""A config.json as published."""


def test_a_published_description_is_understood_and_must_be_told_its_eps(tmp_path: Path) -> None:
    """All its fields; eps is not among them."""
    from geofm_model.exchange.prithvi_config import config_of, description_of
    from geofm_model.exchange.strict_json import Fields

    def read(eps: float | None, **changes: object) -> Description:
        fields = json.loads(json.dumps(PUBLISHED))
        fields["pretrained_cfg"] |= changes
        return description_of(Fields(fields, "config.json"), eps)

    found = read(1e-6)
    assert found.encoder == replace(SIZES["300M"], eps=1e-6)
    assert found.decoder == DecoderConfig()
    assert found.statistics.bands == BANDS
    assert (found.size, found.dates, found.ratio, found.normalise) == (224, 4, 0.75, False)
    assert found.provenance == {
        "origin_url": "somewhere",
        "architecture": "prithvi_eo_v2_300",
        "num_features": "1024",
    }
    written = config_of(found)
    assert written["architecture"] == "prithvi_eo_v2_300"
    assert {**PUBLISHED["pretrained_cfg"], "layer_norm_eps": 1e-6}.items() >= {  # type: ignore[dict-item]
        name: value
        for name, value in written["pretrained_cfg"].items()  # type: ignore[union-attr]
        if name != "provenance"
    }.items()
    assert read(1e-5, bands=["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]).statistics.bands == BANDS
    assert read(1e-5, bands=["B02", "B03", "B04", "B8A", "B11", "B12"]).statistics.bands == BANDS
    assert read(1e-5, bands=list("abcdef")).statistics.bands == tuple("abcdef")
    learned = read(1e-5, coords_encoding=["time", "location"], coords_scale_learn=True)
    assert learned.encoder.metadata
    for eps, changes, message in (
        (None, {}, "does not say the eps of LayerNorm: give eps=1e-6"),
        (1e-5, {"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06, but 1e-05 was asked for"),
        (1e-5, {"coords_encoding": ["time"], "coords_scale_learn": True}, "together and with learned scales"),
        (1e-5, {"coords_encoding": ["time", "location"]}, "together and with learned scales"),
        (1e-5, {"patch_size": [1, 16, 14]}, "patch_size must be dates and a square's two edges"),
        (1e-5, {"in_chans": 5}, "a network of 5 bands needs as many names"),
        (1e-5, {"mean": "all"}, 'mean must be a list of numbers, got "all"'),
        (1e-5, {"mean": [1, 2, 3, 4, 5, "6"]}, "mean must be a list of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            read(eps, **changes)


def test_other_kinds_of_files_are_refused_in_words(tmp_path: Path) -> None:
    """A checkpoint with more than weights, a pickle that would run code, an empty file, none at all."""
    description = described()
    write_prithvi(tmp_path / "out", network(description), description)
    weights = tmp_path / "out" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({"model": state, "epoch": 3}, weights)
    with pytest.raises(ValueError, match="holds more than weights: take the dictionary of tensors out of it"):
        read_prithvi(weights)
    torch.save({"path": Path("x")}, weights)
    with pytest.raises(ValueError, match="holds no plain dictionary of tensors"):
        read_prithvi(weights)
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no plain dictionary of tensors"):
        read_prithvi(weights)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.pt is missing"):
        read_prithvi(weights)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        read_prithvi(weights)
