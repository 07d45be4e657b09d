"""Prithvi's files: a dictionary of weights (`.pt`, read with weights_only) and a config.json beside it."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from geofm_model.exchange.description import Description
from geofm_model.exchange.folder import CONFIG, new_folder, with_decoder, write_json
from geofm_model.exchange.prithvi import encoder_from_prithvi, from_prithvi, to_prithvi
from geofm_model.exchange.prithvi_config import config_of, description_of
from geofm_model.exchange.strict_json import Fields
from geofm_model.models import Encoder, MaskedAutoencoder

WEIGHTS = "model.pt"


def write_prithvi(folder: str | Path, model: MaskedAutoencoder | Encoder, description: Description) -> None:
    """Write a new folder with `model.pt` and `config.json`; ValueError where there is something already."""
    description.check(model)
    state = to_prithvi(model, description.grid)
    with new_folder(folder) as building:
        torch.save(state, building / WEIGHTS)
        write_json(building / CONFIG, config_of(description))


def read_prithvi_network(
    weights: str | Path, *, eps: float | None = None
) -> tuple[MaskedAutoencoder | Encoder, Description]:
    """What a Prithvi file holds, on the CPU, and its description from the config.json beside it.

    That is a masked autoencoder, or an encoder alone where config.json says nothing of a decoder.

    Parameters
    ----------
    eps : of LayerNorm: 1e-6 as Prithvi was trained, 1e-5 as TerraTorch runs it; features differ by about 2e-3. None
        takes that of the file, which ours have

    Raises
    ------
    ValueError
        With all that is missing, unexpected or not as described.
    """
    path = Path(weights).expanduser()
    description = description_of(Fields.read(path.parent / CONFIG), eps)
    read = encoder_from_prithvi if description.decoder is None else from_prithvi
    return read(_state(path), description), description


def read_prithvi(weights: str | Path, *, eps: float | None = None) -> tuple[MaskedAutoencoder, Description]:
    """As :func:`read_prithvi_network`, a masked autoencoder; ValueError where there is an encoder alone."""
    model, description = read_prithvi_network(weights, eps=eps)
    return with_decoder(model, weights), description


def read_prithvi_encoder(weights: str | Path, *, eps: float | None = None) -> tuple[Encoder, Description]:
    """As :func:`read_prithvi_network`, the encoder alone, of a file with or without a decoder."""
    description = description_of(Fields.read(Path(weights).expanduser().parent / CONFIG), eps)
    return encoder_from_prithvi(_state(Path(weights).expanduser()), description), description


def _state(path: Path) -> dict[str, Tensor]:
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: give the path of the weights, config.json beside them") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} holds no plain dictionary of tensors ({error}): get it again") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(
            f"{path} holds more than weights: take the dictionary of tensors out of it (often its entry 'model' or "
            "'state_dict') and save that"
        )
    return {str(name): value for name, value in found.items()}
