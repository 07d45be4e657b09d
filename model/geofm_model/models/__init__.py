"""Networks."""

from geofm_model.models.encoder import SIZES, Encoder, EncoderConfig, Metadata, compile_blocks
from geofm_model.models.mae import DecoderConfig, Errors, MaskedAutoencoder, hidden_errors, patch_moments
from geofm_model.models.masks import Masking, MaskPlan, plan_bands, plan_mask, seen_count
from geofm_model.models.positions import Grid, grid_positions
from geofm_model.models.tokens import Patching, chosen, patches, pixels
from geofm_model.models.work import forward_flops, step_flops

__all__ = [
    "SIZES",
    "DecoderConfig",
    "Encoder",
    "EncoderConfig",
    "Errors",
    "Grid",
    "MaskPlan",
    "MaskedAutoencoder",
    "Masking",
    "Metadata",
    "Patching",
    "chosen",
    "compile_blocks",
    "forward_flops",
    "grid_positions",
    "hidden_errors",
    "patch_moments",
    "patches",
    "pixels",
    "plan_bands",
    "plan_mask",
    "seen_count",
    "step_flops",
]
