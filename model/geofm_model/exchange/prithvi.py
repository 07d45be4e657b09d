"""The names and shapes of Prithvi's weights, both ways. Nothing is skipped, renamed by chance or filled in.

A Prithvi state has the names of TerraTorch's PrithviMAE (`encoder.…`, `decoder.…`); those of version 1, without the
two prefixes, and a leading `module.` of data parallelism are read, too. Conversion moves numbers and changes none:
there and back is equal bit by bit. Position tables, which are a formula and not learned, are written for a grid and,
when read, compared with the formula.

A patch's numbers are the same in both: a row of our Linear [D, s·p·q·c], bands fastest, is a filter of their Conv3d
[D, c, s, p, q].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geofm_model.exchange.description import Description, configs_of
from geofm_model.models import Encoder, EncoderConfig, Grid, MaskedAutoencoder, grid_positions

POSITIONS_WITHIN = 1e-5
"""Tables of other libraries were computed in float32 in places; another grid, order or base is off by 0.1 and more."""

_TABLES = {"encoder": "encoder.pos_embed", "decoder": "decoder.decoder_pos_embed"}
_FILTERS = "encoder.patch_embed.proj.weight"
_RENAMED = (
    ("encoder.cls", "encoder.cls_token"),
    ("encoder.embed.", "encoder.patch_embed.proj."),
    ("encoder.positions.date.", "encoder.temporal_embed_enc."),
    ("encoder.positions.place.", "encoder.location_embed_enc."),
    ("decoder.hidden", "decoder.mask_token"),
    ("decoder.embed.", "decoder.decoder_embed."),
    ("decoder.positions.date.", "decoder.temporal_embed_dec."),
    ("decoder.positions.place.", "decoder.location_embed_dec."),
    ("decoder.blocks.", "decoder.decoder_blocks."),
    ("decoder.norm.", "decoder.decoder_norm."),
    ("decoder.predict.", "decoder.decoder_pred."),
)
_IN_BLOCKS = ((".qkv.", ".attn.qkv."), (".proj.", ".attn.proj."), (".fc1.", ".mlp.fc1."), (".fc2.", ".mlp.fc2."))


def to_prithvi(model: MaskedAutoencoder | Encoder, grid: Grid) -> dict[str, Tensor]:
    """State of TerraTorch's PrithviMAE (or of its encoder alone) with a model's weights.

    Parameters
    ----------
    grid : patches along (t, h, w) that theirs is built for: its num_frames / s, img_size / p, img_size / p

    Returns
    -------
    Copies on the CPU, by their names; their `load_state_dict(…, strict=True)` takes it
    """
    encoder, decoder = configs_of(model)
    state = {"encoder.pos_embed": _table(grid, encoder.width)}
    if decoder:
        state["decoder.decoder_pos_embed"] = _table(grid, decoder.width)
    for name, value in _named(model).items():
        theirs = _their_name(name)
        found = value.detach().to("cpu", copy=True)
        state[theirs] = filters_of(found, encoder) if theirs == _FILTERS else found
    return state


def from_prithvi(state: Mapping[str, Tensor], description: Description) -> MaskedAutoencoder:
    """The masked autoencoder whose weights a Prithvi state holds.

    Parameters
    ----------
    state : by their names; may lie on any device, is copied

    Raises
    ------
    ValueError
        With all entries that are missing, unexpected, of another shape or no real numbers, and position tables that
        are not those of the description's grid.
    """
    if description.decoder is None:
        raise ValueError("the description has no decoder: read the encoder alone (encoder_from_prithvi)")
    with torch.device("meta"):
        model = MaskedAutoencoder(description.encoder, description.decoder)
    _fill(model, _renamed(state), description)
    return model


def encoder_from_prithvi(state: Mapping[str, Tensor], description: Description) -> Encoder:
    """As :func:`from_prithvi`, the encoder alone; the state may have a decoder, which is left out, or none."""
    with torch.device("meta"):
        model = Encoder(description.encoder)
    found = {name: value for name, value in _renamed(state).items() if not name.startswith("decoder.")}
    _fill(model, found, description)
    return model


def filters_of(rows: Tensor, encoder: EncoderConfig) -> Tensor:
    """Weights of the patch embedding as filters: [D, s·p·q·c] → [D, c, s, p, q]."""
    cut = encoder.patching
    return rows.reshape(-1, cut.dates, cut.size, cut.size, cut.bands).permute(0, 4, 1, 2, 3).contiguous()


def rows_of(filters: Tensor) -> Tensor:
    """Inverse of :func:`filters_of`: [D, c, s, p, q] → [D, s·p·q·c]."""
    return filters.permute(0, 2, 3, 4, 1).reshape(len(filters), -1)


def _table(grid: Grid, width: int) -> Tensor:
    return grid_positions(grid, width).float().unsqueeze(0)


def _named(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights as of a masked autoencoder, `encoder.` before those of an encoder alone."""
    prefix = "encoder." if isinstance(model, Encoder) else ""
    return {prefix + name: value for name, value in model.state_dict().items()}


def _their_name(name: str) -> str:
    """Of one of our weights.

    >>> _their_name("decoder.blocks.3.qkv.bias")
    'decoder.decoder_blocks.3.attn.qkv.bias'
    """
    for ours, theirs in _RENAMED:
        if name.startswith(ours):
            name = theirs + name[len(ours) :]
            break
    if "blocks." in name:
        for ours, theirs in _IN_BLOCKS:
            name = name.replace(ours, theirs)
    return name


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of version 2, whichever they were; ValueError where two become one."""
    bare = all(name.startswith("module.") for name in state)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        new = name.removeprefix("module.") if bare else name
        if not new.startswith(("encoder.", "decoder.")):
            of_decoder = new == "mask_token" or new.startswith("decoder_") or "_embed_dec." in new
            new = f"decoder.{new}" if of_decoder else f"encoder.{new}"
        if new in found:
            raise ValueError(f"the weights have {new} twice, under names of two versions ({name}): keep one of them")
        found[new] = value
    return found


def _fill(model: MaskedAutoencoder | Encoder, state: dict[str, Tensor], description: Description) -> None:
    """Give a model on the meta device a state's numbers."""
    widths = {"encoder": description.encoder.width}
    if isinstance(model, MaskedAutoencoder):
        widths["decoder"] = model.decoder.config.width
    tables = {_TABLES[half]: _table(description.grid, width) for half, width in widths.items()}
    ours = {_their_name(name): value for name, value in _named(model).items()}
    ours[_FILTERS] = filters_of(ours[_FILTERS], description.encoder)
    wanted = {name: tuple(value.shape) for name, value in (ours | tables).items()}
    _compare(wanted, state)
    _compare_tables(tables, state, description.grid)
    state = state | {_FILTERS: rows_of(state[_FILTERS])}
    prefix = "encoder." if isinstance(model, Encoder) else ""
    weights = {
        name: state[_their_name(prefix + name)].detach().to("cpu", copy=True).contiguous()
        for name in model.state_dict()
    }
    model.load_state_dict(weights, strict=True, assign=True)


def _compare(wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    """ValueError with everything that differs."""
    both = wanted.keys() & state.keys()
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(wanted[name])}"
        for name in sorted(both)
        if tuple(state[name].shape) != wanted[name]
    ]
    types = {state[name].dtype for name in both}
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unexpected": sorted(state.keys() - wanted.keys()),
        "of another shape": shapes,
        "no real numbers": sorted(name for name in both if not state[name].is_floating_point()),
        "of several types": sorted(map(str, types)) if len(types) > 1 else [],
    }
    found = [f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names]
    if found:
        raise ValueError(
            f"these are not the weights of the described network; {'; '.join(found)}. Nothing was loaded: give the "
            "description (config.json) that belongs to the file"
        )


def _compare_tables(tables: Mapping[str, Tensor], state: Mapping[str, Tensor], grid: Grid) -> None:
    """ValueError where positions are no sines and cosines of the grid."""
    for name, wanted in tables.items():
        found = state[name].detach().to("cpu", torch.float64)
        worst = float((found - wanted.double()).abs().max())
        if not worst <= max(POSITIONS_WITHIN, torch.finfo(state[name].dtype).eps):
            raise ValueError(
                f"{name} is off by {worst:.2g} from the positions of a grid of {grid} patches (t, h, w): the network "
                "was trained with other positions, which are not supported"
            )
