"""What weights need beside them: the shape of the network, its bands and scaling, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from torch import nn

from geofm_model.exchange.strict_json import Fields
from geofm_model.format import JsonObject
from geofm_model.models import DecoderConfig, Encoder, EncoderConfig, Grid, MaskedAutoencoder, Patching
from geofm_model.training.pixel_statistics import PixelStatistics


@dataclass(frozen=True, kw_only=True)
class Description:
    """Of a pre-trained network; the `config.json` of its folder."""

    encoder: EncoderConfig
    decoder: DecoderConfig | None
    """None where there is an encoder alone."""
    statistics: PixelStatistics
    """Bands in order, and what their counts (reflectance × 10⁴) were normalised by."""
    size: int
    """Edge of the views in pixels."""
    dates: int
    """Dates of a view."""
    ratio: float = 0.75
    """Share of tokens that were hidden."""
    normalise: bool = False
    """Targets were normalised patch by patch."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where the weights come from, in words: dataset, digest, samples seen, versions, address."""

    def __post_init__(self) -> None:
        found = self.statistics
        counts = len(found.bands), len(found.mean), len(found.std)
        if set(counts) != {self.encoder.patching.bands}:
            raise ValueError(
                f"a network of {self.encoder.patching.bands} bands needs as many names, means and deviations, got "
                f"{', '.join(map(str, counts))}"
            )
        if len(set(found.bands)) != len(found.bands):
            raise ValueError(f"bands must differ from each other, got {', '.join(found.bands)}")
        if min(found.std) <= 0:
            raise ValueError(f"deviations must be above 0, got {found.std}")
        self.encoder.patching.grid((self.dates, self.size, self.size))

    @property
    def grid(self) -> Grid:
        """Patches of a view along (t, h, w)."""
        return self.encoder.patching.grid((self.dates, self.size, self.size))

    def check(self, model: nn.Module) -> None:
        """ValueError where this describes another network than `model`."""
        encoder, decoder = configs_of(model)
        for name, wanted, found in (("encoder", self.encoder, encoder), ("decoder", self.decoder, decoder)):
            if wanted != found:
                raise ValueError(f"the description has the {name} {wanted}, but the network has {found}")

    def json(self) -> JsonObject:
        """As plain values; :meth:`of_json` reads them."""
        return {
            "encoder": asdict(self.encoder),
            "decoder": asdict(self.decoder) if self.decoder else None,
            "bands": list(self.statistics.bands),
            "mean": list(self.statistics.mean),
            "std": list(self.statistics.std),
            "size": self.size,
            "dates": self.dates,
            "ratio": self.ratio,
            "normalise": self.normalise,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def of_json(cls, record: Fields) -> Description:
        """Inverse of :meth:`json`; ValueError names what is missing, unknown or of another type."""
        encoder, decoder = record.part("encoder"), record.part_or_none("decoder")
        found = cls(
            encoder=_encoder_of(encoder),
            decoder=DecoderConfig(**{name: decoder.whole(name) for name in ("width", "depth", "heads")})
            if decoder
            else None,
            statistics=PixelStatistics(
                bands=record.texts("bands"), mean=record.numbers("mean"), std=record.numbers("std")
            ),
            size=record.whole("size"),
            dates=record.whole("dates"),
            ratio=record.number("ratio"),
            normalise=record.truth("normalise"),
            provenance=record.part("provenance").all_texts(),
        )
        for part in (record, encoder, *([decoder] if decoder else [])):
            part.finish()
        return found


def configs_of(model: nn.Module) -> tuple[EncoderConfig, DecoderConfig | None]:
    """Shapes of a masked autoencoder, or of an encoder alone."""
    if isinstance(model, MaskedAutoencoder):
        return model.encoder.config, model.decoder.config
    if isinstance(model, Encoder):
        return model.config, None
    raise TypeError(f"wanted a MaskedAutoencoder or an Encoder, got a {type(model).__name__}")


def _encoder_of(record: Fields) -> EncoderConfig:
    patching = record.part("patching")
    found = EncoderConfig(
        width=record.whole("width"),
        depth=record.whole("depth"),
        heads=record.whole("heads"),
        patching=Patching(**{name: patching.whole(name) for name in ("size", "dates", "bands")}),
        mlp_ratio=record.number("mlp_ratio"),
        eps=record.number("eps"),
        metadata=record.truth("metadata"),
    )
    patching.finish()
    return found
