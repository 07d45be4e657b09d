"""The Zarr v3 documents of a store: arrays, chunks, codecs and root attributes, as docs/store.md words them.

Every `zarr.json` is serialised by :func:`dumps` and by nothing else, so its bytes are a function of its content
and a flipped byte shows even where JSON would still parse. Chunk keys use the `.` separator: one flat folder per
array, one directory to sync after a rename.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

import numpy as np

from geofm_pipeline.hls import bands as hls
from geofm_pipeline.hls import fmask as hls_fmask
from geofm_pipeline.store.spec import SCHEMA_VERSION, SPLITS, TOMBSTONE, Profile, StoreSpec

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, Json]

ROW_CHUNK = 65536
"""Rows in one chunk of a metadata array."""
NO_CHUNK = 2**64 - 1
"""Offset and length of an all-fill chunk in a shard index: Zarr stores none."""
NO_CRC = 2**32 - 1
"""Checksum of a chunk that is not stored; NO_CHUNK in the index decides, for a stored chunk may have this one too."""
BLOCKSIZE = 524_288
"""Blosc block in bytes: fixed, it decodes zstd about twice as fast as the automatic choice."""
ROOT = "zarr.json"
MANIFEST = "manifest"
KEY = "geofm"
"""Name under which all our attributes stand."""


@dataclass(frozen=True, kw_only=True)
class Blosc:
    """Parameters of one blosc codec."""

    cname: str
    clevel: int
    shuffle: str
    """`bitshuffle` or `shuffle`."""
    typesize: int
    blocksize: int = 0

    def document(self) -> JsonObject:
        """The codec as Zarr v3 writes it."""
        configuration: JsonObject = {
            "typesize": self.typesize,
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": self.shuffle,
            "blocksize": self.blocksize,
        }
        return {"name": "blosc", "configuration": configuration}


IMAGE_CODECS: dict[Profile, Blosc] = {
    "zstd": Blosc(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2, blocksize=BLOCKSIZE),
    "local": Blosc(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2, blocksize=BLOCKSIZE),
}
FMASK_CODEC = Blosc(cname="lz4", clevel=5, shuffle="shuffle", typesize=1)


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """One array of a store."""

    path: str
    """Path of the array inside the store, e.g. `lon` or `manifest/image_index`."""
    dtype: str
    """Zarr and numpy name of the type; bytes are little-endian."""
    shape: tuple[int, ...]
    fill: int | float
    dims: tuple[str, ...]
    meaning: str
    """One sentence with the unit, kept as attribute `long_name`."""
    codec: Blosc
    shard: int = 0
    """Samples per shard (inner chunk: one sample); 0 for an unsharded metadata array."""
    columns: tuple[str, ...] = ()
    """Names of the entries of the last axis, where it is not a physical one."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of the stored object: a shard, or a chunk of up to ROW_CHUNK rows."""
        return (self.shard or min(ROW_CHUNK, self.shape[0]), *self.shape[1:])

    @property
    def chunks(self) -> int:
        """Number of stored objects."""
        return -(-self.shape[0] // self.chunk[0])

    def key(self, chunk: int) -> str:
        """Path of a stored object inside the store, e.g. `image/c.12.0.0.0.0`."""
        return f"{self.path}/c.{chunk}" + ".0" * (len(self.shape) - 1)

    def document(self) -> JsonObject:
        """The array's `zarr.json`."""
        attributes: JsonObject = {"long_name": self.meaning}
        if self.columns:
            attributes["columns"] = list(self.columns)
        return {
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if isinstance(self.fill, float) and np.isnan(self.fill) else self.fill,
            "codecs": self._codecs(),
            "attributes": attributes,
            "dimension_names": list(self.dims),
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }

    def _codecs(self) -> list[Json]:
        little: JsonObject = {"name": "bytes", "configuration": {"endian": "little"}}
        first: JsonObject = {"name": "bytes"} if np.dtype(self.dtype).itemsize == 1 else little
        inner: list[Json] = [first, self.codec.document(), {"name": "crc32c"}]
        if not self.shard:
            return inner
        configuration: JsonObject = {
            "chunk_shape": [1, *self.shape[1:]],
            "codecs": inner,
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]


def image_layout(spec: StoreSpec) -> ArrayLayout:
    """Reflectance, [N, T, B, H, W]."""
    return ArrayLayout(
        path="image",
        dtype="int16",
        shape=(spec.n, *spec.image_shape),
        fill=hls.FILL,
        dims=("sample", "time", "band", "y", "x"),
        meaning="surface reflectance × 10000; -9999 where missing; values ≤ 0 are data",
        codec=IMAGE_CODECS[spec.profile],
        shard=spec.shard_size,
    )


def fmask_layout(spec: StoreSpec) -> ArrayLayout:
    """The raw HLS quality byte, [N, T, H, W]."""
    return ArrayLayout(
        path="fmask",
        dtype="uint8",
        shape=(spec.n, *spec.fmask_shape),
        fill=hls_fmask.FILL,
        dims=("sample", "time", "y", "x"),
        meaning="raw HLS Fmask byte; 255 where missing, tested before any bit",
        codec=FMASK_CODEC,
        shard=spec.shard_size,
    )


def row_layouts(spec: StoreSpec) -> tuple[ArrayLayout, ...]:
    """The metadata arrays, one entry (or T entries) per sample."""
    n, dated = (spec.n,), (spec.n, spec.timesteps)
    return (
        _rows("lon", "float64", n, float("nan"), "longitude of the chip's centre, degrees east"),
        _rows("lat", "float64", n, float("nan"), "latitude of the chip's centre, degrees north"),
        _rows("date", "int32", dated, -1, "sensing day (UTC), days since 1970-01-01, ascending along time"),
        _rows("sensor", "int8", dated, -1, "0 L30, 1 S30"),
        _rows("stratum", "int32", n, -1, "stratum number of the sampling design"),
        _rows("split", "int8", n, TOMBSTONE, "0 train, 1 held-out, 2 test, -1 tombstone (pixels unreadable)"),
        _rows("unit", "uint64", n, NO_CHUNK, "packed id of the sampling unit"),
    )


def manifest_layouts(spec: StoreSpec) -> tuple[ArrayLayout, ...]:
    """The side-car: sizes and checksums of the shards, and where each sample lies in its shard."""
    return tuple(layout for name in ("image", "fmask") for layout in _manifest_of(spec, name))


def _manifest_of(spec: StoreSpec, name: str) -> tuple[ArrayLayout, ArrayLayout, ArrayLayout]:
    codec = Blosc(cname="zstd", clevel=1, shuffle="shuffle", typesize=8)
    shards = ArrayLayout(
        path=f"{MANIFEST}/{name}_shards",
        dtype="uint64",
        shape=(spec.shards, 3),
        fill=NO_CHUNK,
        dims=("shard", "fact"),
        meaning=f"size, CRC-32C and samples of each {name} shard; size 0 where all samples are fill and no file exists",
        codec=codec,
        columns=("bytes", "crc32c", "samples"),
    )
    index = ArrayLayout(
        path=f"{MANIFEST}/{name}_index",
        dtype="uint64",
        shape=(spec.n, 2),
        fill=NO_CHUNK,
        dims=("sample", "place"),
        meaning=f"where each sample's {name} chunk lies in its shard; both 2⁶⁴−1 where all is fill and none is stored",
        codec=codec,
        columns=("offset", "length"),
    )
    checksums = ArrayLayout(
        path=f"{MANIFEST}/{name}_crc32c",
        dtype="uint32",
        shape=(spec.n,),
        fill=NO_CRC,
        dims=("sample",),
        meaning=f"CRC-32C of each sample's encoded {name}, as stored in its last four bytes; fill where none is stored",
        codec=Blosc(cname="zstd", clevel=1, shuffle="shuffle", typesize=4),
    )
    return shards, index, checksums


def _rows(path: str, dtype: str, shape: tuple[int, ...], fill: int | float, meaning: str) -> ArrayLayout:
    return ArrayLayout(
        path=path,
        dtype=dtype,
        shape=shape,
        fill=fill,
        dims=("sample", "time")[: len(shape)],
        meaning=meaning,
        codec=Blosc(cname="zstd", clevel=1, shuffle="shuffle", typesize=np.dtype(dtype).itemsize),
    )


def store_layouts(spec: StoreSpec) -> tuple[ArrayLayout, ...]:
    """All arrays but the manifest's."""
    return (image_layout(spec), fmask_layout(spec), *row_layouts(spec))


def codec_versions() -> dict[str, str]:
    """Versions of the libraries whose output decides bytes; equal on all workers of a run."""
    return {name: version(name) for name in ("numcodecs", "google-crc32c")}


def root_attributes(spec: StoreSpec) -> JsonObject:
    """Root attributes of a store that is still being written, without statistics and `complete`."""
    names: JsonObject = {
        sensor: [files[name] for name in spec.bands if name in files] for sensor, files in hls.BAND_FILES.items()
    }
    rule: JsonObject = {
        "rule": "image != fill in all bands, and fmask != fmask_fill, and fmask & byte == 0",
        "fill": hls.FILL,
        "fmask_fill": hls_fmask.FILL,
        "bits": list(spec.mask_rule.bits),
        "byte": spec.mask_rule.byte,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "wave": spec.wave,
        "samples": spec.n,
        "timesteps": spec.timesteps,
        "height": spec.height,
        "width": spec.width,
        "bands": list(spec.bands),
        "band_files": names,
        "scale": hls.SCALE,
        "fill": hls.FILL,
        "sensors": {str(sensor): code for sensor, code in hls.SENSOR_CODE.items()},
        "splits": {**SPLITS, "tombstone": TOMBSTONE},
        "shard_size": spec.shard_size,
        "group_shards": spec.group_shards,
        "profile": spec.profile,
        "seed": spec.seed,
        "valid_pixel": rule,
        "min_clear": spec.min_clear,
        "provenance": dict(sorted(spec.provenance.items())),
        "codec_versions": dict(codec_versions()),
        "spec_digest": spec.digest,
    }


def group_document(attributes: JsonObject) -> JsonObject:
    """The `zarr.json` of a group with our attributes."""
    return {"attributes": {KEY: attributes}, "zarr_format": 3, "node_type": "group"}


def dumps(document: JsonObject) -> bytes:
    """The only bytes a document of a store may have."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def sealed(attributes: JsonObject) -> bytes:
    """Root `zarr.json` of a finished store: `digest` over the document without it, then `complete`, last."""
    attributes = {**attributes, "digest": "", "complete": True}
    attributes["digest"] = hashlib.sha256(dumps(group_document(attributes))).hexdigest()
    return dumps(group_document(attributes))
