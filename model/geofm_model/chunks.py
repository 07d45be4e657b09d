"""The hot path of every read: one range, its checksums, one decode straight into given memory.

Nothing of Zarr is on it: the manifest says where a sample lies. The result is what was written or an error that names
shard and sample. Reading and decoding run without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from struct import Struct

import google_crc32c
import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module without types
from numpy.typing import NDArray

from geofm_model.errors import StoreError
from geofm_model.files import Bytes, Files
from geofm_model.format import NO_CHUNK, REMEDY, chunk_name

Turn = AbstractContextManager[object]
"""What a thread holds while it uses a core; `nullcontext()` where there are no more threads than cores."""

_RESIDUE = 0x48674BC7  # CRC-32C of any bytes followed by their own CRC-32C
_HEADER = Struct("<3xBIII")  # of a blosc chunk: typesize, uncompressed size, block size, compressed size
_TAIL = 4  # bytes of the CRC-32C at the end of a chunk

blosc.use_threads = False  # its own threads would hold the GIL


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """Where the samples of one sharded array lie."""

    name: str
    files: Files
    dtype: np.dtype[np.generic]
    sample: tuple[int, ...]
    """Shape of one sample."""
    fill: int
    shard_size: int
    index: NDArray[np.uint64]
    """[N, 2] offset and length in the shard."""
    crcs: NDArray[np.uint32]
    """[N] CRC-32C of the encoded bytes."""
    shards: NDArray[np.uint64]
    """[S, 3] bytes, CRC-32C and samples of each shard."""

    def file(self, shard: int) -> str:
        """Name of a shard."""
        return chunk_name(self.name, shard, len(self.sample) + 1)

    def load(self, index: int, out: NDArray[np.generic], scratch: Callable[[int], Bytes], turn: Turn) -> None:
        """Decode a sample into `out`, contiguous, of this array's shape and type.

        Parameters
        ----------
        scratch : gives so many bytes of this thread's own memory
        turn : held while decoding

        Raises
        ------
        StoreError
            When its shard is missing or its bytes are not what was written; `out` then holds nothing of use.
        """
        offset, length = self.index[index].tolist()
        if offset == NO_CHUNK:
            out.fill(self.fill)
            return
        data = self._read(index, offset, length, scratch)
        with turn:
            # The residue says that the bytes fit the checksum at their end, the manifest that it is this sample's.
            mine = length >= _HEADER.size + _TAIL and int.from_bytes(data[-_TAIL:], "little") == self.crcs[index]
            if not mine or google_crc32c.value(data) != _RESIDUE or not _fits(data, out):
                raise StoreError(
                    f"sample {index} of shard {self._shard(index)} is corrupt: its CRC-32C does not match; {REMEDY}"
                )
            blosc.decompress(data[:-_TAIL], out)

    def check_sizes(self) -> None:
        """Raise StoreError for a shard that is missing, short or long, where sizes can be had."""
        for shard, (size, _, samples) in enumerate(self.shards.tolist()):
            actual = self.files.size(self.file(shard))
            if actual is not None and actual != size:
                first = shard * self.shard_size
                raise StoreError(
                    f"shard {self.files.where}/{self.file(shard)} has {actual} bytes instead of {size}"
                    f"{' (it is missing)' if not actual else ''}: samples {first}–{first + samples - 1} are hit; "
                    f"{REMEDY}"
                )

    def _read(self, index: int, offset: int, length: int, scratch: Callable[[int], Bytes]) -> Bytes:
        try:
            data = self.files.part(self.file(index // self.shard_size), offset, length, scratch)
        except FileNotFoundError:
            wrong = "is missing"
        except OSError as error:
            wrong = f"gives an error ({error.strerror or error})"
        else:
            wrong = "" if data.size == length else "ends early"
            if not wrong:
                return data
        raise StoreError(f"sample {index} cannot be read: shard {self._shard(index)} {wrong}; {REMEDY}")

    def _shard(self, index: int) -> str:
        return f"{self.files.where}/{self.file(index // self.shard_size)}"


def _fits(data: Bytes, out: NDArray[np.generic]) -> bool:
    """Whether blosc will write exactly what `out` holds."""
    typesize, nbytes, _, cbytes = _HEADER.unpack_from(data.data)
    return (typesize, nbytes) == (out.itemsize, out.nbytes) and cbytes == data.size - _TAIL
