"""Header of a COG: where the blocks of its images lie and how they are coded.

Parses classic and BigTIFF, little-endian, tiled, one sample per pixel: the first IFD, which is the full-resolution
image, and on request the overviews that follow it. One read of FIRST_READ bytes opens an HLS file, whose header ends
before byte 8,100; where the block tables lie further back, exactly the missing ranges are read. Cost: 30 µs.
Source: TIFF 6.0, the BigTIFF design note, OGC GeoTIFF 1.1 §7 (tie point and pixel scale), GDAL's tag 42113.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FIRST_READ = 16_384
"""Bytes of the first read: twice an HLS header, a quarter of a block."""
DEFLATE = (8, 32946)
"""Compression codes of a zlib stream: Adobe's and the old one."""
NO_PREDICTOR, HORIZONTAL = 1, 2
_TABLE_LIMIT, _EDGE_LIMIT, _FILE_LIMIT = 1 << 20, 8192, 1 << 40
"""Most values of a tag, pixels of a block's edge and bytes of a file: more is damage, no reason to read gigabytes."""

_TYPES = {1: "u1", 2: "S1", 3: "<u2", 4: "<u4", 6: "i1", 7: "u1", 8: "<i2", 9: "<i4", 12: "<f8", 13: "<u4", 16: "<u8"}
"""numpy types of TIFF field types."""
_SUBFILE, _REDUCED = 254, 1
_MOST_LEVELS = 32
"""Directories of a file that are looked at; a chain that loops ends here."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PREDICTOR = 256, 257, 258, 259, 277, 317
_BLOCK_WIDTH, _BLOCK_HEIGHT, _OFFSETS, _COUNTS, _FORMAT = 322, 323, 324, 325, 339
_PIXEL_SCALE, _TIE_POINT, _NODATA = 33550, 33922, 42113
_SHAPE = (_WIDTH, _HEIGHT, _BITS, _SAMPLES, _FORMAT)
_BLOCKS = (_BLOCK_WIDTH, _BLOCK_HEIGHT, _OFFSETS, _COUNTS, _COMPRESSION, _PREDICTOR)
_WANTED = frozenset((*_SHAPE, *_BLOCKS, _PIXEL_SCALE, _TIE_POINT, _NODATA, _SUBFILE))
_KINDS = {1: "u", 2: "i", 3: "f"}

ReadRange = Callable[[int, int], bytes]
"""(start, length) → bytes, fewer only at the end of the file."""


class HeaderError(ValueError):
    """A file that is no readable COG; the message is the cause in words a user understands."""


@dataclass(frozen=True, kw_only=True)
class CogHeader:
    """One image of a COG: the full resolution or an overview."""

    width: int
    """Columns in pixels."""
    height: int
    """Rows in pixels."""
    block_width: int
    block_height: int
    dtype: np.dtype[np.generic]
    """Type of a pixel, little-endian."""
    compression: int
    """TIFF code, e.g. 8 for DEFLATE."""
    predictor: int
    """TIFF code: 1 none, 2 horizontal differences."""
    nodata: float | None
    """GDAL's nodata value: what a block that is not stored holds."""
    pixel_scale: tuple[float, float] | None
    """Width and height of a pixel in metres."""
    origin: tuple[float, float] | None
    """Easting and northing of the upper-left corner."""
    offsets: NDArray[np.uint64]
    """[block rows, block columns], byte offset of each block, 0 where it is not stored."""
    counts: NDArray[np.uint64]
    """[block rows, block columns], bytes of each block, 0 where it is not stored."""

    def span(self, block_row: int, block_col: int) -> tuple[int, int]:
        """(byte offset, length) of a block, (0, 0) for one that is not stored and so holds only nodata."""
        return int(self.offsets[block_row, block_col]), int(self.counts[block_row, block_col])


def is_html(data: bytes) -> bool:
    """Whether a file starts like a web page; no TIFF starts so."""
    return data[:64].lstrip().startswith(b"<")


def read_header(read: ReadRange, *, first_read: int = FIRST_READ) -> CogHeader:
    """Parse the header of one file.

    Parameters
    ----------
    read : gives a byte range of the file; called once for HLS files
    first_read : bytes of the first call

    Raises
    ------
    HeaderError
        Saying what the file is instead, where it ends too early, or which of its properties is not supported.
    """
    return _build(_Ifd(_Bytes(read, first_read)))


def read_levels(read: ReadRange, *, first_read: int = FIRST_READ) -> tuple[CogHeader, ...]:
    """Parse the full-resolution image and all overviews of one file, finest first; arguments as :func:`read_header`.

    Masks and pages that are no reduced images are left out. An overview without a nodata value has the file's.

    Raises
    ------
    HeaderError
        As :func:`read_header`, also where the header of an overview is damaged.
    """
    data = _Bytes(read, first_read)
    ifd = _Ifd(data)
    levels = [_build(ifd)]
    for _ in range(_MOST_LEVELS):
        if ifd.next == 0:
            break
        ifd = _Ifd(data, ifd.next)
        if ifd.number(_SUBFILE, 0) == _REDUCED:
            level = _build(ifd)
            levels.append(level if level.nodata is not None else replace(level, nodata=levels[0].nodata))
    return (levels[0], *sorted(levels[1:], key=lambda level: -level.width))


class _Bytes:
    """The file's bytes as far as they are known; reads what is missing."""

    def __init__(self, read: ReadRange, first_read: int) -> None:
        self._read, self.head = read, read(0, first_read)

    def get(self, start: int, length: int) -> bytes:
        if start + length <= len(self.head):
            return self.head[start : start + length]
        if start + length > _FILE_LIMIT:
            raise HeaderError(f"the file is damaged: its header points to byte {start}")
        data = self._read(start, length)
        if len(data) < length:
            raise HeaderError(
                f"the file is truncated: its header needs bytes {start} to {start + length}, "
                f"{len(data)} of these {length} are there"
            )
        return data


class _Ifd:
    """The wanted tags of the image file directory at byte `start`; of the first one if None."""

    def __init__(self, data: _Bytes, start: int | None = None) -> None:
        self._data = data
        self._big = _is_big(data.head)
        self._name = "first" if start is None else "overview"
        self._entries, self._end = self._read_entries(self._word(8 if self._big else 4) if start is None else start)

    def _read_entries(self, start: int) -> tuple[dict[int, tuple[str, int, bytes]], int]:
        """tag → (numpy type, count, value or offset field), and the byte behind the last entry."""
        entry = "<HHQ8s" if self._big else "<HHI4s"
        number = "<Q" if self._big else "<H"
        size = struct.calcsize(number)
        (count,) = struct.unpack(number, self._data.get(start, size))
        if not 0 < count <= 4096:
            raise HeaderError(f"the file is damaged: its {self._name} directory claims {count} tags")
        table = self._data.get(start + size, count * struct.calcsize(entry))
        rows = struct.iter_unpack(entry, table)
        wanted = {tag: (_TYPES.get(kind, ""), n, field) for tag, kind, n, field in rows if tag in _WANTED}
        return wanted, start + size + len(table)

    def _word(self, start: int) -> int:
        """The byte offset that stands at byte `start`."""
        word = "<Q" if self._big else "<I"
        (value,) = struct.unpack(word, self._data.get(start, struct.calcsize(word)))
        return int(value)

    @property
    def next(self) -> int:
        """Byte of the next directory, 0 behind the last one."""
        return self._word(self._end)

    def values(self, tag: int, kinds: str) -> NDArray[np.generic] | None:
        """All values of a tag, or None where it is absent; HeaderError when its numpy kind is not among `kinds`."""
        if tag not in self._entries:
            return None
        kind, count, field = self._entries[tag]
        if not kind or np.dtype(kind).kind not in kinds or count > _TABLE_LIMIT:
            raise HeaderError(f"the file is damaged: tag {tag} has {count} values of type {kind or 'unknown'}")
        size = np.dtype(kind).itemsize * count
        if size > len(field):
            (start,) = struct.unpack("<Q" if self._big else "<I", field)
            field = self._data.get(start, size)
        return np.frombuffer(field[:size], dtype=kind)

    def number(self, tag: int, default: int | None = None) -> int:
        """The first value of a tag as an integer; HeaderError where it is absent without a default."""
        values = self.values(tag, "iu")
        if values is None or values.size == 0:
            if default is None:
                raise HeaderError(f"the TIFF has no tag {tag}: it is not a tiled raster such as a COG")
            return default
        return int(values[0])


def _is_big(head: bytes) -> bool:
    """Whether the file is a BigTIFF; raises HeaderError for everything that is no little-endian TIFF."""
    if is_html(head):
        raise HeaderError("an HTML page, not a TIFF")
    if head[:4] in (b"MM\0*", b"MM\0+"):
        raise HeaderError("a big-endian TIFF: HLS files are little-endian, this one was rewritten by another program")
    if head[:4] not in (b"II*\0", b"II+\0") and not 0 < len(head) < 4:
        raise HeaderError(f"not a TIFF: it starts with {head[:8]!r}" if head else "an empty file instead of a TIFF")
    if len(head) < 16:
        raise HeaderError(f"the file is truncated: it ends at {len(head)}, inside its header")
    if head[2] == 43 and head[4:8] != b"\x08\0\0\0":
        raise HeaderError(f"the file is damaged: a BigTIFF that starts with {head[:8]!r}")
    return head[2] == 43


def _build(ifd: _Ifd) -> CogHeader:
    width, height = ifd.number(_WIDTH), ifd.number(_HEIGHT)
    block_width, block_height = ifd.number(_BLOCK_WIDTH), ifd.number(_BLOCK_HEIGHT)
    if min(width, height, block_width, block_height) < 1 or max(block_width, block_height) > _EDGE_LIMIT:
        raise HeaderError(f"the file is damaged: {height} × {width} px in blocks of {block_height} × {block_width}")
    if ifd.number(_SAMPLES, 1) != 1:
        raise HeaderError(f"{ifd.number(_SAMPLES)} samples per pixel: every HLS band is a file of its own")
    dtype = _dtype(ifd)
    offsets, counts = _tables(ifd, (-(-height // block_height), -(-width // block_width)))
    if counts.max() > 2 * block_width * block_height * dtype.itemsize + 1024:
        raise HeaderError(f"the file is damaged: a block of {counts.max()} bytes, more than its pixels take")
    scale, tie = ifd.values(_PIXEL_SCALE, "f"), ifd.values(_TIE_POINT, "f")
    return CogHeader(
        width=width,
        height=height,
        block_width=block_width,
        block_height=block_height,
        dtype=dtype,
        compression=ifd.number(_COMPRESSION, 1),
        predictor=ifd.number(_PREDICTOR, NO_PREDICTOR),
        nodata=_nodata(ifd),
        pixel_scale=None if scale is None or scale.size < 2 else (float(scale[0]), float(scale[1])),
        origin=None if tie is None or scale is None or tie.size < 6 or scale.size < 2 else _origin(tie, scale),
        offsets=offsets,
        counts=counts,
    )


def _origin(tie: NDArray[np.generic], scale: NDArray[np.generic]) -> tuple[float, float]:
    """Position of pixel corner (0, 0) from a tie point (column, row, _, easting, northing, _)."""
    col, row, _, x, y, _ = (float(v) for v in tie[:6])
    return x - col * float(scale[0]), y + row * float(scale[1])


def _dtype(ifd: _Ifd) -> np.dtype[np.generic]:
    bits, code = ifd.number(_BITS, 1), ifd.number(_FORMAT, 1)
    try:
        return np.dtype(f"<{_KINDS[code]}{bits / 8:g}")
    except (KeyError, TypeError):
        raise HeaderError(f"pixels of {bits} bits in sample format {code} are not supported") from None


def _nodata(ifd: _Ifd) -> float | None:
    text = ifd.values(_NODATA, "S")
    if text is None:
        return None
    try:
        return float(text.tobytes().rstrip(b"\0 ").decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise HeaderError(f"the file is damaged: its nodata tag reads {text.tobytes()!r}") from None


def _tables(ifd: _Ifd, shape: tuple[int, int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(offsets, lengths) of the blocks by rows."""
    offsets, counts = _table(ifd, _OFFSETS, shape), _table(ifd, _COUNTS, shape)
    if np.any((offsets == 0) != (counts == 0)):
        raise HeaderError("the file is damaged: a block has an offset without a length, or a length without an offset")
    if offsets.max() > _FILE_LIMIT:
        raise HeaderError(f"the file is damaged: a block at byte {offsets.max()}")
    return offsets, counts


def _table(ifd: _Ifd, tag: int, shape: tuple[int, int]) -> NDArray[np.uint64]:
    values = ifd.values(tag, "u")
    if values is None or values.size != shape[0] * shape[1]:
        found = "no" if values is None else values.size
        raise HeaderError(f"the file is damaged: {found} entries in block table {tag}, {shape[0] * shape[1]} blocks")
    return values.astype(np.uint64).reshape(shape)
