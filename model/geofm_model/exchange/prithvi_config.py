"""Prithvi's config.json to a Description and back, with its words for bands.

TerraTorch does not read this file: it takes the shape from the name of a variant and from arguments, and LayerNorm's
eps is always 1e-5 there, 1e-6 in the published training. Files of others do not say it, so whoever reads one does; ours
have it as `layer_norm_eps`.
"""

from __future__ import annotations

from collections.abc import Mapping

from geofm_model.exchange.description import Description
from geofm_model.exchange.strict_json import Fields
from geofm_model.format import JsonObject
from geofm_model.models import SIZES, DecoderConfig, EncoderConfig, Patching
from geofm_model.training.pixel_statistics import PixelStatistics

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
"""Names of Prithvi's bands in stores and descriptions."""
_L30 = ("B02", "B03", "B04", "B05", "B06", "B07")  # what published files have
_S30 = ("B02", "B03", "B04", "B8A", "B11", "B12")  # here B05 to B07 would be red edge
_VARIANTS = {
    "tiny": ("other", "prithvi_eo_v2_tiny_tl"),
    "100M": ("prithvi_eo_v1_100", "prithvi_eo_v2_100_tl"),
    "300M": ("prithvi_eo_v2_300", "prithvi_eo_v2_300_tl"),
    "600M": ("prithvi_eo_v2_600", "prithvi_eo_v2_600_tl"),
}
"""By size: TerraTorch's name without metadata, and with."""
_TERRATORCH = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")


def config_of(description: Description) -> JsonObject:
    """The fields of config.json."""
    encoder, decoder, cut = description.encoder, description.decoder, description.encoder.patching
    shape: JsonObject = {
        "img_size": description.size,
        "num_frames": description.dates,
        "patch_size": [cut.dates, cut.size, cut.size],
        "in_chans": cut.bands,
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.heads,
        "mlp_ratio": encoder.mlp_ratio,
        "coords_encoding": ["time", "location"] if encoder.metadata else [],
        "coords_scale_learn": encoder.metadata,
        "mask_ratio": description.ratio,
        "norm_pix_loss": description.normalise,
        "layer_norm_eps": encoder.eps,
        "bands": list(_translated(description.statistics.bands, dict(zip(BANDS, _L30, strict=True)))),
        "mean": list(description.statistics.mean),
        "std": list(description.statistics.std),
        "provenance": dict(description.provenance),
    }
    if decoder:
        shape |= {
            "decoder_embed_dim": decoder.width,
            "decoder_depth": decoder.depth,
            "decoder_num_heads": decoder.heads,
        }
    return {"architecture": _architecture(encoder), "num_features": encoder.width, "pretrained_cfg": shape}


def description_of(record: Fields, eps: float | None) -> Description:
    """Of a config.json; `eps` of LayerNorm, None takes the file's own.

    What the file says beyond the network's shape (addresses, papers) is kept as provenance.
    """
    shape = record.part("pretrained_cfg")
    decoder = "decoder_embed_dim" in shape
    return Description(
        encoder=_encoder_of(shape, eps),
        decoder=DecoderConfig(
            width=shape.whole("decoder_embed_dim"),
            depth=shape.whole("decoder_depth"),
            heads=shape.whole("decoder_num_heads"),
        )
        if decoder
        else None,
        statistics=PixelStatistics(
            bands=_canonical(shape.texts("bands")), mean=shape.numbers("mean"), std=shape.numbers("std")
        ),
        size=shape.whole("img_size"),
        dates=shape.whole("num_frames"),
        ratio=shape.number("mask_ratio"),
        normalise=shape.truth("norm_pix_loss"),
        provenance=(shape.part("provenance").all_texts() if "provenance" in shape else {})
        | shape.all_texts()
        | record.all_texts(),
    )


def _encoder_of(shape: Fields, eps: float | None) -> EncoderConfig:
    patch = shape.numbers("patch_size")
    if len(patch) != 3 or patch[1] != patch[2] or any(edge < 1 or edge % 1 for edge in patch):
        raise ValueError(f"{shape.where}: patch_size must be dates and a square's two edges, got {list(patch)}")
    return EncoderConfig(
        width=shape.whole("embed_dim"),
        depth=shape.whole("depth"),
        heads=shape.whole("num_heads"),
        patching=Patching(size=int(patch[1]), dates=int(patch[0]), bands=shape.whole("in_chans")),
        mlp_ratio=shape.number("mlp_ratio"),
        eps=_eps(shape, eps),
        metadata=_metadata(shape),
    )


def _eps(shape: Fields, asked: float | None) -> float:
    said = shape.number("layer_norm_eps") if "layer_norm_eps" in shape else None
    if asked is not None and said is not None and asked != said:
        raise ValueError(f"{shape.where}: layer_norm_eps is {said:g}, but {asked:g} was asked for: leave eps out")
    found = said if asked is None else asked
    if found is None:
        raise ValueError(
            f"{shape.where} does not say the eps of LayerNorm: give eps=1e-6 as Prithvi was trained, or 1e-5 as "
            "TerraTorch runs it"
        )
    return found


def _metadata(shape: Fields) -> bool:
    """Both of date and place with learned scales, or neither: what Prithvi's networks have."""
    coords, learned = shape.texts("coords_encoding"), shape.truth("coords_scale_learn")
    if coords and (set(coords) != {"time", "location"} or not learned):
        raise ValueError(
            f"{shape.where}: dates and places are supported together and with learned scales, or not at all; "
            f"got coords_encoding {', '.join(coords)}, coords_scale_learn {str(learned).lower()}"
        )
    return bool(coords)


def _architecture(encoder: EncoderConfig) -> str:
    """TerraTorch's name for an encoder of this shape, or `other`."""
    shape = encoder.width, encoder.depth, encoder.heads
    for size, names in _VARIANTS.items():
        known = SIZES[size]
        if shape == (known.width, known.depth, known.heads):
            return names[encoder.metadata]
    return "other"


def _canonical(bands: tuple[str, ...]) -> tuple[str, ...]:
    """Bands of a file in the words of stores; others stay as they are."""
    for words in (_TERRATORCH, _S30, _L30):
        if set(bands) <= set(words):
            return _translated(bands, dict(zip(words, BANDS, strict=True)))
    return bands


def _translated(bands: tuple[str, ...], words: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(words[band] for band in bands) if set(bands) <= set(words) else bands
