"""Networks."""

from geofm_model.models.encoder import SIZES, Encoder, EncoderConfig, Metadata
from geofm_model.models.mae import DecoderConfig, Errors, MaskedAutoencoder, hidden_errors
from geofm_model.models.positions import Grid, grid_positions
from geofm_model.models.tokens import MaskPlan, Patching, chosen, patches, pixels, plan_mask, seen_count

__all__ = [
    "SIZES",
    "DecoderConfig",
    "Encoder",
    "EncoderConfig",
    "Errors",
    "Grid",
    "MaskPlan",
    "MaskedAutoencoder",
    "Metadata",
    "Patching",
    "chosen",
    "grid_positions",
    "hidden_errors",
    "patches",
    "pixels",
    "plan_mask",
    "seen_count",
]
