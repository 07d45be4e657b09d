"""Our own form: a folder with `model.safetensors` and `config.json`, which is there whole or not at all.

config.json is a :class:`Description` with the format's name and version, and the SHA-256 of the weights, so that
weights and description of two networks cannot meet. No code runs when a folder is read.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geofm_model.disk import digest_of, to_disk
from geofm_model.exchange.description import Description
from geofm_model.exchange.strict_json import Fields
from geofm_model.format import JsonObject
from geofm_model.models import Encoder, MaskedAutoencoder

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "geofm-model", 1


def save_model(folder: str | Path, model: MaskedAutoencoder | Encoder, description: Description) -> None:
    """Write a network as a new folder; ValueError where there is something already."""
    description.check(model)
    prefix = "encoder." if isinstance(model, Encoder) else ""
    state = {prefix + name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with new_folder(folder) as building:
        save_file(state, building / WEIGHTS, metadata={"format": "pt"})
        head: JsonObject = {"format": FORMAT, "version": VERSION, "sha256": digest_of(building / WEIGHTS)}
        write_json(building / CONFIG, head | description.json())


def load_network(folder: str | Path) -> tuple[MaskedAutoencoder | Encoder, Description]:
    """What a folder holds, on the CPU: a masked autoencoder, or an encoder alone where there is no decoder.

    Raises
    ------
    ValueError
        With the name of what is not as it should be.
    """
    state, description = _read(folder)
    if description.decoder is None:
        return _encoder(state, description, folder), description
    with torch.device("meta"):
        model = MaskedAutoencoder(description.encoder, description.decoder)
    _load(model, state, folder)
    return model, description


def load_model(folder: str | Path) -> tuple[MaskedAutoencoder, Description]:
    """As :func:`load_network`, a masked autoencoder; ValueError where there is an encoder alone."""
    model, description = load_network(folder)
    return with_decoder(model, folder), description


def load_encoder(folder: str | Path) -> tuple[Encoder, Description]:
    """The encoder of a folder, whether it has a decoder or not."""
    state, description = _read(folder)
    return _encoder(state, description, folder), description


def with_decoder(model: MaskedAutoencoder | Encoder, place: str | Path) -> MaskedAutoencoder:
    """The model of a place, once it is known to predict; ValueError where it is an encoder alone."""
    if isinstance(model, Encoder):
        raise ValueError(
            f"{place} has an encoder alone, which predicts nothing: give a whole network (in Python, load_encoder and "
            "read_prithvi_encoder read it)"
        )
    return model


@contextmanager
def new_folder(place: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes its name when the block ends well and is removed when it does not.

    Raises
    ------
    ValueError
        When there is something already, or nothing can be written.
    """
    folder = Path(place).expanduser()
    if folder.exists():
        raise ValueError(f"{folder} is there already: choose another folder, or remove it")
    building = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
    try:
        building.mkdir(parents=True)
        yield building
        for path in (*building.iterdir(), building):
            to_disk(path)
        building.rename(folder)
        to_disk(folder.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # the latter two of those who save tensors
        raise ValueError(f"{folder} cannot be written ({error}): make room, or choose another folder") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def write_json(path: Path, fields: JsonObject) -> None:
    """A file for machines and people."""
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


def _read(place: str | Path) -> tuple[dict[str, Tensor], Description]:
    folder = Path(place).expanduser()
    record = Fields.read(folder / CONFIG)
    name, version, digest = record.text("format"), record.whole("version"), record.text("sha256")
    if (name, version) != (FORMAT, VERSION):
        raise ValueError(f"{folder / CONFIG} is {name!r} version {version}; this reads {FORMAT!r} version {VERSION}")
    description = Description.of_json(record)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{weights} is missing: get the folder again")
    if digest_of(weights) != digest:
        raise ValueError(f"{weights} is not the file that {CONFIG} was written for (SHA-256): get the folder again")
    try:
        return load_file(weights), description
    except SafetensorError as error:
        raise ValueError(f"{weights} cannot be read ({error}): get the folder again") from None


def _encoder(state: dict[str, Tensor], description: Description, folder: str | Path) -> Encoder:
    with torch.device("meta"):
        model = Encoder(description.encoder)
    parts = {name.removeprefix("encoder."): value for name, value in state.items() if not name.startswith("decoder.")}
    _load(model, parts, folder)
    return model


def _load(model: nn.Module, state: dict[str, Tensor], folder: str | Path) -> None:
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{Path(folder) / WEIGHTS} is not of the network that {CONFIG} describes: {error}") from None
