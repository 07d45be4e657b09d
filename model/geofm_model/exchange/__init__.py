"""Weights that travel: own folders of safetensors, and Prithvi's files, both ways and strictly."""

from geofm_model.exchange.bands import select_bands
from geofm_model.exchange.description import Description
from geofm_model.exchange.folder import load_encoder, load_model, load_network, save_model, with_decoder
from geofm_model.exchange.prithvi import encoder_from_prithvi, from_prithvi, to_prithvi
from geofm_model.exchange.prithvi_files import (
    read_prithvi,
    read_prithvi_encoder,
    read_prithvi_network,
    write_prithvi,
)

__all__ = [
    "Description",
    "encoder_from_prithvi",
    "from_prithvi",
    "load_encoder",
    "load_model",
    "load_network",
    "read_prithvi",
    "read_prithvi_encoder",
    "read_prithvi_network",
    "save_model",
    "select_bands",
    "to_prithvi",
    "with_decoder",
    "write_prithvi",
]
