"""Writes the shards of a store, group by group; the only code that does.

*Group*: a run of whole shards written by one call of :func:`write_group`, the unit of work, of resuming and of a
Dask task. Chips arrive in any order, are encoded at once to a nameless scratch file and then laid into their shards
in row order, so memory holds a few chips and never a group. A shard appears by rename; after the last one the
group's part is written, and that commits the group. Writing a group again gives the same bytes, so a second or late
worker changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipReader, ChipRequest, ReadStats
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.store.codec import ChunkEncoder, prepare
from geofm_pipeline.store.files import file_crc32c, file_size
from geofm_pipeline.store.layout import fmask_layout, image_layout
from geofm_pipeline.store.parts import GroupResult, Tombstone, read_part, write_part
from geofm_pipeline.store.shards import Scratch, write_shards
from geofm_pipeline.store.skeleton import check_store
from geofm_pipeline.store.spec import TOMBSTONE, StoreSpec
from geofm_pipeline.store.sums import BandSums, chip_sums, valid_pixels


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """A chip to read and the row of the store it goes to; small and picklable."""

    index: int
    """Global sample index: shard × K + row."""
    chip: ChipRequest
    split: int = 0
    """0 train, 1 held-out, 2 test."""


def write_group(
    path: Path,
    spec: StoreSpec,
    parts_dir: Path,
    scratch_dir: Path,
    group: int,
    requests: Sequence[RowRequest],
    reader: ChipReader,
    *,
    threads: int = 1,
) -> GroupResult:
    """Read, encode and commit one group; a group that is committed already is returned as it stands.

    Parameters
    ----------
    path : the store, made by `create`
    parts_dir : folder beside the store, on the same file system, for parts and temporary files
    scratch_dir : fast local folder; holds up to one encoded group, and nothing after the call, even after a kill
    requests : exactly the rows of the group, in the order in which the reader should read them
    threads : encoding threads; memory is about 2 · threads + 2 chips

    Raises
    ------
    ArchiveError
        A transient fault of the reader: nothing of the group is committed, try again. A permanent one is a
        tombstone instead: all-fill pixels, split −1, its cause in the result.
    ResourceError
        The disk is full; committed groups are kept.
    OutputConflictError
        `path` is another store, or it is sealed and this group's part is gone.
    """
    done = _committed(path, spec, parts_dir, group, deep=False)
    if done is not None:
        return done
    _refuse_sealed(path, spec)
    _check_requests(spec, group, requests)
    temp_dir = temporary_folder(parts_dir)
    prepare()
    before = _copy(reader.stats)
    with Scratch(scratch_dir, spec, group) as scratch:
        accounts = _encode_group(spec, requests, reader, scratch, threads)
        # A worker that was given up as lost may get here late: then the group is another's, and stays as it is.
        done = _committed(path, spec, parts_dir, group, deep=False)
        if done is not None:
            return done
        _refuse_sealed(path, spec)
        shards, places = write_shards(path, temp_dir, scratch, threads)
    result = _result(spec, group, requests, accounts, since(before, reader.stats))
    result = GroupResult(**result, shards=shards, image_index=places["image"], fmask_index=places["fmask"])
    write_part(parts_dir, temp_dir, result)
    return result
