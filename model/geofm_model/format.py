"""What docs/store.md promises, as checks: every function raises StoreError where a store differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias, cast

from geofm_model.errors import StoreError
from geofm_model.files import Files
from geofm_model.sample import BandStatistics, PixelRule

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, Json]

SCHEMA_VERSION = 1
NO_CHUNK = 2**64 - 1
"""Offset and length of a chunk that is all fill and therefore not stored."""
NO_CRC = 2**32 - 1
"""Checksum that stands for a chunk that is not stored."""
ROW_CHUNK = 65536
REMEDY = "run `geofm-sample verify` on it, then restore the file from a copy or write the store again"

_LITTLE: JsonObject = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTE: JsonObject = {"name": "bytes"}
_CRC: JsonObject = {"name": "crc32c"}


@dataclass(frozen=True, kw_only=True)
class Header:
    """The root attributes that a reader needs."""

    samples: int
    """N, tombstones included."""
    timesteps: int
    height: int
    width: int
    bands: tuple[str, ...]
    """Canonical names of axis B."""
    shard_size: int
    profile: str
    rule: PixelRule
    statistics: Mapping[str, Mapping[str, BandStatistics]]
    """By split name and band."""
    manifest: JsonObject
    """Size and checksum of the manifest's document."""
    digest: str
    """SHA-256 of the sealed root document, the name of this store's content."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.shard_size)


@dataclass(frozen=True, kw_only=True)
class ArrayRule:
    """What one array must be."""

    dtype: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    """Shape of a stored object."""
    fill: Json
    codecs: tuple[JsonObject, ...]


def read_header(files: Files) -> tuple[Header, bytes]:
    """Parse and check the root document of a sealed store; the document's bytes beside it."""
    data, document = _read_document(files, "zarr.json")
    attributes = _geofm(document, files.where)
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{files.where} has store schema {version!r}, this reader knows {SCHEMA_VERSION}: "
            "install the version of geofm-model that reads it"
        )
    if attributes.get("complete") is not True:
        raise StoreError(f"{files.where} is not sealed: its writer was interrupted; repeat the geofm-sample command")
    if not _signed(data, document):
        raise StoreError(f"{files.where}/zarr.json does not match its own digest: it was changed; {REMEDY}")
    try:
        return _header(attributes), data
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{files.where}/zarr.json lacks what a store must say ({error!r}); {REMEDY}") from None


def read_documents(files: Files, header: Header) -> dict[str, bytes]:
    """Every small file but the root document, by name, each with the size and SHA-256 that the manifest says."""
    name = "manifest/zarr.json"
    found = {name: _read_checked(files, name, header.manifest)}
    listed = _geofm(_parsed(found[name], files.where, name), f"{files.where}/manifest").get("files")
    facts = cast("dict[str, JsonObject]", listed)
    with ThreadPoolExecutor(max(1, files.at_once)) as pool:
        documents = pool.map(lambda file: _read_checked(files, file, facts[file]), facts)
        return found | dict(zip(facts, documents, strict=True))


def _read_checked(files: Files, name: str, facts: JsonObject) -> bytes:
    """A small file; raises unless it has the size and SHA-256 the manifest says."""
    try:
        data = files.read(name)
    except FileNotFoundError:
        raise StoreError(f"{files.where}/{name} is missing; {REMEDY}") from None
    if len(data) != facts.get("bytes") or sha256(data).hexdigest() != facts.get("sha256"):
        raise StoreError(f"{files.where}/{name} was changed: size or checksum is not the manifest's; {REMEDY}")
    return data


def array_rules(header: Header) -> dict[str, ArrayRule]:
    """What every array of a store must be, by path."""
    n, t, b, h, w = header.samples, header.timesteps, len(header.bands), header.height, header.width
    return {
        "image": _sharded(header, "int16", (t, b, h, w), -9999, _image_blosc(header.profile)),
        "fmask": _sharded(header, "uint8", (t, h, w), 255, _blosc("lz4", 5, "shuffle", 1)),
        "lon": _plain("float64", (n,), "NaN"),
        "lat": _plain("float64", (n,), "NaN"),
        "date": _plain("int32", (n, t), -1),
        "sensor": _plain("int8", (n, t), -1),
        "stratum": _plain("int32", (n,), -1),
        "split": _plain("int8", (n,), -1),
        "unit": _plain("uint64", (n,), NO_CHUNK),
        "manifest/image_shards": _plain("uint64", (header.shards, 3), NO_CHUNK),
        "manifest/fmask_shards": _plain("uint64", (header.shards, 3), NO_CHUNK),
        "manifest/image_crc32c": _plain("uint32", (n,), NO_CRC),
        "manifest/fmask_crc32c": _plain("uint32", (n,), NO_CRC),
        "manifest/image_index": _plain("uint64", (n, 2), NO_CHUNK),
        "manifest/fmask_index": _plain("uint64", (n, 2), NO_CHUNK),
    }


def check_array(documents: Mapping[str, bytes], where: str, name: str, rule: ArrayRule) -> None:
    """Raise unless an array's document says exactly what the contract says."""
    file = f"{name}/zarr.json"
    if file not in documents:
        raise StoreError(f"{where}/{file} is missing; {REMEDY}")
    document = _parsed(documents[file], where, file)
    wanted: JsonObject = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": rule.dtype,
        "shape": list(rule.shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(rule.chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": rule.fill,
        "codecs": list(rule.codecs),
    }
    for key, value in wanted.items():
        if document.get(key) != value:
            raise StoreError(f"array {name} of {where} has {key} {document.get(key)}, must be {value}; {REMEDY}")


def chunk_name(array: str, chunk: int, ndim: int) -> str:
    """Path of a stored object inside the store, e.g. `image/c.12.0.0.0.0`."""
    return f"{array}/c.{chunk}" + ".0" * (ndim - 1)


def _sharded(header: Header, dtype: str, sample: tuple[int, ...], fill: int, blosc: JsonObject) -> ArrayRule:
    inner: list[Json] = [_BYTE if dtype == "uint8" else _LITTLE, blosc, _CRC]
    configuration: JsonObject = {
        "chunk_shape": [1, *sample],
        "codecs": inner,
        "index_codecs": [_LITTLE, _CRC],
        "index_location": "end",
    }
    return ArrayRule(
        dtype=dtype,
        shape=(header.samples, *sample),
        chunk=(header.shard_size, *sample),
        fill=fill,
        codecs=({"name": "sharding_indexed", "configuration": configuration},),
    )


def _plain(dtype: str, shape: tuple[int, ...], fill: Json) -> ArrayRule:
    size = {"float64": 8, "int32": 4, "uint32": 4, "int8": 1, "uint64": 8}[dtype]
    first = _BYTE if size == 1 else _LITTLE
    chunk = (min(ROW_CHUNK, shape[0]), *shape[1:])
    return ArrayRule(
        dtype=dtype, shape=shape, chunk=chunk, fill=fill, codecs=(first, _blosc("zstd", 1, "shuffle", size), _CRC)
    )


def _image_blosc(profile: str) -> JsonObject:
    cname, level = {"zstd": ("zstd", 1), "local": ("lz4", 5)}[profile]
    return _blosc(cname, level, "bitshuffle", 2, 524_288)


def _blosc(cname: str, clevel: int, shuffle: str, typesize: int, blocksize: int = 0) -> JsonObject:
    configuration: JsonObject = {
        "typesize": typesize,
        "cname": cname,
        "clevel": clevel,
        "shuffle": shuffle,
        "blocksize": blocksize,
    }
    return {"name": "blosc", "configuration": configuration}


def _read_document(files: Files, name: str) -> tuple[bytes, JsonObject]:
    try:
        data = files.read(name)
    except FileNotFoundError:
        raise StoreError(
            f"{files.where}/{name} does not exist: give the path of a store, such as OUT/store.zarr"
        ) from None
    return data, _parsed(data, files.where, name)


def _parsed(data: bytes, where: str, name: str) -> JsonObject:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{where}/{name} is not JSON ({error}); {REMEDY}") from None
    if not isinstance(document, dict):
        raise StoreError(f"{where}/{name} is not a Zarr v3 document; {REMEDY}")
    return document


def _geofm(document: JsonObject, where: str) -> JsonObject:
    attributes = document.get("attributes")
    ours = attributes.get("geofm") if isinstance(attributes, dict) else None
    if document.get("zarr_format") != 3 or document.get("node_type") != "group" or not isinstance(ours, dict):
        raise StoreError(f"{where} is not a geofm store: its zarr.json is no Zarr v3 group with a `geofm` attribute")
    return ours


def _signed(data: bytes, document: JsonObject) -> bool:
    """Whether the root document's digest is the SHA-256 of its bytes with the digest left empty."""
    digest = cast("dict[str, JsonObject]", document["attributes"])["geofm"].get("digest")
    if not isinstance(digest, str) or data.count(digest.encode()) != 1 or len(digest) != 64:
        return False
    return sha256(data.replace(digest.encode(), b"")).hexdigest() == digest


def _header(attributes: JsonObject) -> Header:
    a = cast("dict[str, int]", attributes)
    rule = cast("dict[str, int]", attributes["valid_pixel"])
    profile = str(attributes["profile"])
    if profile not in ("zstd", "local"):
        raise ValueError(f"profile {profile!r}")
    return Header(
        samples=a["samples"],
        timesteps=a["timesteps"],
        height=a["height"],
        width=a["width"],
        bands=tuple(cast("list[str]", attributes["bands"])),
        shard_size=a["shard_size"],
        profile=profile,
        rule=PixelRule(fill=rule["fill"], fmask_fill=rule["fmask_fill"], byte=rule["byte"]),
        statistics=_statistics(cast("dict[str, dict[str, dict[str, dict[str, str]]]]", attributes["statistics"])),
        manifest=cast("JsonObject", attributes["manifest"]),
        digest=str(attributes["digest"]),
    )


def _statistics(
    splits: Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]],
) -> dict[str, dict[str, BandStatistics]]:
    return {
        split: {band: _band_statistics(sums) for band, sums in entry["bands"].items()}
        for split, entry in splits.items()
    }


def _band_statistics(sums: Mapping[str, str]) -> BandStatistics:
    return BandStatistics(count=int(sums["count"]), sum=int(sums["sum"]), sum_of_squares=int(sums["sum_of_squares"]))
